"""`--mode enhance`: denoises or sharpens a video or image."""

from ml_collections import ConfigDict

from deepsteg_jax import media, sample_clips
from deepsteg_jax.commands import Options
from deepsteg_jax.enhance import check, enhance_file


def run(config: ConfigDict, options: Options) -> None:
    """Take the steps in --enhance.steps on `--input` and write `--output`.

    Raises:
        UserError: see `enhance.enhance_file`.
    """
    del config
    from tqdm import tqdm

    path = sample_clips.resolve(options.input)
    info, steps = media.probe(path), check(options.enhance)
    with tqdm(desc="enhance", total=info.frames, unit="frame", dynamic_ncols=True) as bar:
        frames = enhance_file(path, options.output, options.enhance, bar.update)
    print(f"{options.output}: {frames} frames of {info.width}x{info.height}; {', '.join(steps)}")
