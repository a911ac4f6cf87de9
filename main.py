"""deepsteg_jax: hides a video in a video and reveals it with a key.

    python main.py --config configs/video.py [--mode MODE] [--workdir DIR] [--config.FIELD=VALUE ...]

Three modes have settings of their own: --live.FIELD, --enhance.FIELD and --export.FIELD.
This file only turns flags into a call of one mode; all logic is in the package.
"""

import shlex
import sys
from collections.abc import Iterator
from typing import Any

from absl import app, flags
from ml_collections import ConfigDict, config_flags

from deepsteg_jax import commands
from deepsteg_jax.cli import DONE, USAGE, exit_code, fail, listed

NEEDED = {
    "hide": ("cover", "secret", "output"),
    "reveal": ("stego", "output"),
    "keygen": ("output",),
    "live": ("cover", "secret"),
    "enhance": ("input", "output"),
}

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "The config, for example configs/video.py.", lock_config=True)
flags.DEFINE_enum("mode", "roundtrip", commands.MODES, "What to do.")
flags.DEFINE_bool("print_config", False, "Print all fields and settings that the mode uses, and end.")
flags.DEFINE_string(
    "workdir", None, "Folder for what roundtrip, train, evaluate and export write. Default: runs/CONFIG."
)
flags.DEFINE_string(
    "cover",
    None,
    "hide: the video or image that everybody may see; live: also 0, 1, ... for a camera, or rtsp://, http://.",
)
flags.DEFINE_multi_string(
    "secret", None, "hide, live: the video or image to be hidden; hide with configs/adaptive.py: any file."
)
flags.DEFINE_integer(
    "slots",
    1,
    "hide: 2, 4 or 8: room for as many secrets; give --secret, and --key_file, once for each.",
    lower_bound=1,
)
flags.DEFINE_string("stego", None, "reveal: the video or image with the secret inside.")
flags.DEFINE_string("input", None, "enhance: the video or image to be enhanced.")
flags.DEFINE_string(
    "output",
    None,
    "hide, reveal: what to write, .mkv, .nut or .webm for video, .png for an image, a folder or "
    "frame_%05d.png for images; "
    "hide with configs/robust.py: .mp4 and .jpg too; with configs/adaptive.py: .mp4 too, "
    "and reveal a folder DIR/ for a file under its own name; "
    "keygen: the key file; export: a folder; "
    "enhance: as reveal; live: a video, .mkv or .mp4, in place of the window.",
)
flags.DEFINE_multi_string(
    "passphrase_file", None, "File whose first line is the passphrase (else DEEPSTEG_PASSPHRASE)."
)
flags.DEFINE_multi_string("key_file", None, "Key file of --mode keygen, in place of a passphrase.")
flags.DEFINE_bool("loop_cover", False, "hide: repeat a cover that is shorter than the secret.")
flags.DEFINE_bool(
    "drop_tags",
    False,
    "hide: leave out the cover's tags: location, camera, author, title, all but languages.",
)
flags.DEFINE_string("coordinator", None, "train in several processes: HOST:PORT of process 0.")
flags.DEFINE_integer("num_processes", None, "train in several processes: how many.", lower_bound=1)
flags.DEFINE_integer("process_id", None, "train in several processes: which one this is.", lower_bound=0)
flags.DEFINE_integer(
    "workers", 0, "evaluate: processes for several pairs at once, which slows each down.", lower_bound=0
)
flags.DEFINE_string("scheduler", None, "evaluate: a Dask scheduler, tls://HOST:PORT; see docs/LISTS.md.")
flags.DEFINE_string("host", "127.0.0.1", "app: the address to serve on; see docs/APP.md.")
flags.DEFINE_integer("port", 7860, "app: the port; 0: any free one.", lower_bound=0, upper_bound=65535)
flags.DEFINE_bool("open", False, "app: open the page in the browser.")
flags.DEFINE_bool("enhance_revealed", False, "reveal, roundtrip: enhance what is revealed, see --enhance.")
flags.DEFINE_integer("upload_limit", 2048, "app: the largest file that the page takes, MiB.", lower_bound=1)


def _reason(error: Exception) -> str:
    """What is wrong, without the traceback that ml_collections puts into its messages."""
    lines = str(error.args[0] if isinstance(error, KeyError) else error).strip().splitlines() or [repr(error)]
    return f"the config cannot be read: {lines[-1]}" if len(lines) > 2 else " ".join(lines)


def _define_settings(argv: list[str]) -> None:
    """Defines --live.FIELD and the like for the fields that `argv` names."""
    for name, settings in commands.SETTINGS.items():
        config_flags.DEFINE_config_dict(
            name,
            settings.copy_and_resolve_references(),
            f"Settings of --mode {name}, given as --{name}.FIELD=VALUE.",
            sys_argv=argv,
            allow_override=True,
        )


def _value(name: str) -> Any:
    """The value of a flag; of one that was given several times, which hide alone permits, a tuple."""
    value = FLAGS[name].value
    if not isinstance(value, list):
        return value
    if len(value) > 1 and FLAGS.mode != "hide":
        raise flags.Error(f"--mode {FLAGS.mode} takes one --{name}")
    return value[0] if len(value) == 1 else tuple(value)


def _refuse_unused() -> None:
    """Raises `flags.Error` for a field that the mode does not use."""
    mode, given = FLAGS.mode, {name: FLAGS[name].override_values for name in commands.SETTINGS}
    for field in FLAGS["config"].override_values:
        if field.partition(".")[0] not in commands.SECTIONS[mode]:
            raise flags.Error(f"--mode {mode} does not use --config.{field}")
    for name, fields in given.items():
        used = name == mode or (
            name == "enhance" and mode in ("reveal", "roundtrip") and FLAGS.enhance_revealed
        )
        if fields and not used:
            raise flags.Error(f"--mode {mode} does not use --{name}.{next(iter(fields))}")


def _print_config() -> None:
    """Print the fields and settings that the mode uses, each as a flag, ready for a shell."""
    fields = {"config": FLAGS.config.to_dict()}  # with references between fields resolved
    fields["config"] = {x: y for x, y in fields["config"].items() if x in commands.SECTIONS[FLAGS.mode]}
    fields |= {name: FLAGS[name].value.to_dict() for name in commands.SETTINGS if name == FLAGS.mode}
    for name, value in _leaves(fields):
        print(f"--{name}={_quote(str(value))}")


def _quote(text: str) -> str:
    """Quote for a shell; tuples hold single quotes, which `shlex.quote` makes unreadable."""
    return f'"{text}"' if "'" in text and not set(text) & set('"$`\\!') else shlex.quote(text)


def _leaves(tree: dict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (name with dots, value) of each leaf of nested dictionaries."""
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _parse(argv: list[str]) -> commands.Options:
    """Parses the flags; raises `flags.Error` for every mistake in them."""
    try:
        _define_settings(argv)
        rest = FLAGS(argv)[1:]
    except (AttributeError, KeyError) as error:
        raise flags.Error(f"the config has no such name: {_reason(error)}") from None
    except Exception as error:  # a config file is a program and may raise anything
        raise flags.Error(_reason(error)) from None
    if rest:
        raise flags.Error(f"unexpected argument {rest[0]!r}: flags begin with --")
    if FLAGS.config is None:
        raise flags.Error("--config is missing: for example --config configs/video.py")
    if not isinstance(FLAGS.config, ConfigDict):  # ml_collections complains at the first access only
        name = config_flags.get_config_filename(FLAGS["config"])
        raise flags.Error(f"the config file {name!r} cannot be read")
    _refuse_unused()
    values = {name: _value(name) for name in commands.Options._fields}
    missing = [name for name in NEEDED.get(FLAGS.mode, ()) if "" in (listed(values[name]) or [""])]
    if missing and not FLAGS.print_config:
        raise flags.Error(f"--mode {FLAGS.mode} needs {' and '.join('--' + name for name in missing)}")
    name = config_flags.get_config_filename(FLAGS["config"]).rpartition("/")[2].partition(".py")[0]
    workdir = FLAGS.workdir or f"runs/{name}"
    return commands.Options(**values | {"workdir": workdir})


def main(argv: list[str]) -> int:
    """Runs one mode; returns the exit code, see `cli.exit_code`; 2 is a mistake in the command line."""
    app.define_help_flags()
    try:
        options = _parse(argv)
    except SystemExit:  # of --help, with 1
        return 0
    except flags.Error as error:
        return fail("main.py", f"{error}; see --help", USAGE)
    if FLAGS.print_config:
        _print_config()
        return DONE
    return exit_code("main.py", lambda: commands.load(FLAGS.mode).run(FLAGS.config, options))


if __name__ == "__main__":
    sys.exit(main(sys.argv))
