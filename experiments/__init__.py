"""What is measured: `python -m experiments.NAME`, results in `results/`."""
