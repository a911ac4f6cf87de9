"""Hide and reveal for other runtimes."""
