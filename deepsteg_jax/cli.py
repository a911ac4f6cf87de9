"""The console script `deepsteg`: hides and reveals files, without a config file.

Parsing imports neither JAX nor NumPy, so that help and mistakes in the command line appear at once.
"""

import argparse
import ast
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from io import TextIOWrapper
from typing import Any, NoReturn

from deepsteg_jax import __version__
from deepsteg_jax.errors import PartialError, UserError

DONE, FAILED, USAGE, PARTIAL = 0, 1, 2, 3  # exit codes
PURPOSES = ("file", "post", "live")
CHANGE = "--config."
SHELLS = ("bash", "zsh", "fish", "powershell", "tcsh")
FILES = (
    "COVER",
    "SECRET",
    "STEGO",
    "REVEALED",
    "KEY",
    "FILE",
    "LIST",
)  # what a shell completes by names of files

BATCH = "\n--batch LIST in place of the files does a whole list: see --batch LIST --help."

EXAMPLES = """\
examples:
  deepsteg hide holiday.mp4 secret.mp4 -o stego.mkv
  deepsteg reveal stego.mkv -o revealed.mkv

The passphrase is asked for, or read from DEEPSTEG_PASSPHRASE or --passphrase-file; a file made by
`deepsteg keygen` replaces it (--key-file).
"""


# --- exit codes -----------------------------------------------------------------------------------


def fail(program: str, line: str, code: int) -> int:
    """Print one line on stderr and return the exit code."""
    print(f"{program}: {' '.join(line.split())}", file=sys.stderr)
    return code


def exit_code(program: str, job: Callable[[], Any]) -> int:
    """Run a job and return the exit code of the process, after one line on stderr if the job failed.

    0: done; 1: a mistake in the input; 3: a damaged input, done as far as possible; 130: interrupted. SIGTERM
    and SIGHUP unwind the job, so that it removes unfinished files, and exit with 128 + their number.
    """
    for name in ("SIGTERM", "SIGHUP"):  # Windows has no SIGHUP
        if number := getattr(signal, name, None):
            signal.signal(number, lambda received, _: sys.exit(128 + received))
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    try:
        job()
    except UserError as error:
        return fail(program, str(error), FAILED)
    except PartialError as error:
        return fail(program, str(error), PARTIAL)
    except KeyboardInterrupt:
        return fail(program, "interrupted", 128 + signal.SIGINT)
    return DONE


def announce(line: str) -> None:
    """Print what is known of a job before its work, unless that is nothing."""
    from tqdm import tqdm

    if line:
        tqdm.write(line, file=sys.stderr)  # above the progress bar


# --- the command line -----------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Tells mistakes in one line, and takes no abbreviated options."""

    def __init__(self, **settings: Any):
        super().__init__(**settings, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        sys.exit(fail("deepsteg", f"{message}; see {self.prog} --help", USAGE))


class _Completion(argparse.Action):
    """Prints the completion script of a shell, and ends."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: Any, shell: Any, option: Any = None
    ) -> None:
        import shtab

        (commands,) = (x.choices for x in parser._actions if isinstance(x, argparse._SubParsersAction))
        for action in (action for command in commands.values() for action in command._actions):
            if action.metavar in FILES:
                action.complete = shtab.FILE
        print(shtab.complete(parser, shell))
        parser.exit()


def make_parser(batch: bool = False) -> argparse.ArgumentParser:
    """Return the parser, with `batch` that of lists; `options.run(options)` carries out what was parsed."""
    parser = _Parser(
        prog="deepsteg",
        description="Hide a video or picture in another one, and reveal it with a passphrase or key file.",
        epilog=EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"deepsteg {__version__}")
    parser.add_argument(
        "--print-completion", action=_Completion, choices=SHELLS, help="print what a shell needs to complete"
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    _add_hide(commands, batch)
    _add_reveal(commands, batch)
    _add_keygen(commands)
    _add_app(commands)
    _add_info(commands)
    return parser


def _add_hide(commands: Any, batch: bool) -> None:
    hide = _add(commands, "hide", _hide, "hide a secret in a cover")
    if batch:
        _add_batch(hide, "cover, secret, output and key_file")
    else:
        hide.add_argument("cover", metavar="COVER", help="the video or picture that everybody may see")
        hide.add_argument(
            "secret", metavar="SECRET", nargs="+", help="the video, picture or other file to hide"
        )
        hide.add_argument("-o", "--output", metavar="STEGO", required=True, help="what to write")
        _add_key(hide, each="; once for each SECRET", action="append", default=[])
    _add_purpose(hide)
    hide.add_argument("--scheme", metavar="NAME", help="how to hide, in place of what --for chooses")
    _add_slots(hide)
    hide.add_argument(
        "--loop-cover",
        "--loop_cover",  # as messages call it, which main.py shares
        action="store_true",
        help="repeat a cover shorter than the secret",
    )
    hide.add_argument(
        "--drop-tags",
        action="store_true",
        help="leave out the cover's tags: location, camera, author, title, all but languages",
    )
    hide.epilog = f"{CHANGE}FIELD=VALUE, any number of times, changes a field of the scheme's config.{BATCH}"


def _add_reveal(commands: Any, batch: bool) -> None:
    reveal = _add(commands, "reveal", _reveal, "reveal the secret of a stego")
    reveal.epilog = BATCH.strip()
    if batch:
        _add_batch(reveal, "stego, output and key_file")
        return
    reveal.add_argument("stego", metavar="STEGO", help="the video or picture with a secret in it")
    reveal.add_argument(
        "-o", "--output", metavar="REVEALED", required=True, help="what to write; DIR/: by its own name"
    )
    _add_key(reveal)


def _add_batch(command: _Parser, columns: str) -> None:
    command.set_defaults(run=_batch, job=command.get_default("run"))
    command.add_argument(
        "--batch",
        metavar="LIST",
        required=True,
        help=f"a CSV file with the columns {columns}, a row for each file; paths are relative to it",
    )
    command.add_argument("--key-file", metavar="FILE", help="of rows that name none")
    command.add_argument(
        "--results", metavar="FILE", help="what to write, a row for each file (LIST.results.csv)"
    )
    where = command.add_mutually_exclusive_group()
    where.add_argument(
        "--workers", type=_positive, metavar="N", help="processes (as many as cores and memory allow)"
    )
    where.add_argument(
        "--scheduler", metavar="ADDRESS", help="of a Dask cluster that sees the same files: tls://HOST:PORT"
    )


def _add_keygen(commands: Any) -> None:
    keygen = _add(commands, "keygen", _keygen, "make a key file, which replaces a passphrase")
    keygen.add_argument("-o", "--output", metavar="KEY", required=True, help="a file that does not exist yet")


def _add_app(commands: Any) -> None:
    app = _add(commands, "app", _app, "serve the page for the browser")
    app.add_argument("--host", default="127.0.0.1", help="address to serve on (%(default)s)")
    app.add_argument("--port", type=_port, default=7860, help="port, 0: any free one (%(default)s)")
    app.add_argument("--open", action="store_true", help="open the page in the browser")
    app.add_argument(
        "--upload-limit", type=_positive, default=2048, metavar="MIB", help="largest file, MiB (%(default)s)"
    )


def _add_info(commands: Any) -> None:
    info = _add(commands, "info", _info, "describe a file, and what it can hide as a cover")
    info.add_argument("file", metavar="FILE", help="a video or picture")
    _add_purpose(info)
    _add_slots(info)


def _add(commands: Any, name: str, run: Callable[[argparse.Namespace], None], text: str) -> _Parser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(run=run, parser=command)
    return command


def _add_purpose(command: _Parser) -> None:
    command.add_argument(
        "--for",
        dest="purpose",
        choices=PURPOSES,
        help="what the stego must survive: exact copies (file), re-encoding (post), or hide frame by frame "
        "(live); by default the suffix decides",
    )


def _add_slots(command: _Parser) -> None:
    command.add_argument(
        "--slots",
        type=_positive,
        default=1,
        metavar="N",
        help="2, 4 or 8: room for as many secrets, each with a key of its own, which are asked for in turn; "
        "nothing tells how many there are",
    )


def _add_key(command: _Parser, each: str = "", **settings: Any) -> None:
    keys = command.add_mutually_exclusive_group()
    for name, text in (
        ("--passphrase-file", "its first line is the passphrase"),
        ("--key-file", "made by deepsteg keygen, replaces a passphrase"),
    ):
        keys.add_argument(name, metavar="FILE", help=text + each, **settings)


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port} is not in 0..65535")
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


_port.__name__ = _positive.__name__ = "number"  # argparse says: invalid number value


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line; `changes` of the result are the fields of the config to change.

    Raises:
        SystemExit: after help, the version, or one line about a mistake.
    """
    batch = any(argument.partition("=")[0] == "--batch" for argument in argv)
    options, rest = make_parser(batch).parse_known_args(argv)
    hides = _hide in (options.run, getattr(options, "job", None))
    pairs = [argument for argument in rest if argument.startswith(CHANGE)] if hides else []
    if unknown := [argument for argument in rest if argument not in pairs]:
        options.parser.error(f"unexpected argument {unknown[0]!r}")
    options.changes = dict(_change(options.parser, pair) for pair in pairs)
    return options


def _change(parser: _Parser, pair: str) -> tuple[str, Any]:
    """Parse "--config.model.modulus=4" as ("model.modulus", 4); a value that is no Python literal is text."""
    name, given, text = pair.removeprefix(CHANGE).partition("=")
    if not name or not given:
        parser.error(f"{pair} has no value: write {CHANGE}FIELD=VALUE")
    with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return name, ast.literal_eval(text)
    return name, text


# --- commands -------------------------------------------------------------------------------------


def _hide(options: argparse.Namespace) -> None:
    from deepsteg_jax import media, sample_clips

    inputs = [sample_clips.resolve(path) for path in (options.cover, *options.secret)]
    info = media.probe(inputs[0])  # before the passphrase is asked for
    for secret in inputs[1:]:
        media.check_readable(secret)
    media.check_stego(options.output, inputs, info)

    from deepsteg_jax import api

    with _progress("hide", None if options.loop_cover else info.frames) as bar:
        report = api.hide_file(
            options.cover,
            options.secret,
            options.output,
            lambda: asked_for_each(options, bar),
            purpose=options.purpose,
            scheme=options.scheme,
            changes=options.changes,
            loop_cover=options.loop_cover,
            drop_tags=options.drop_tags,
            slots=options.slots,
            progress=bar.update,
            announce=announce,
        )
    print(f"{options.output}: {report.summary()}")


def _reveal(options: argparse.Namespace) -> None:
    from deepsteg_jax import media

    info = media.probe(options.stego, [])
    media.check_place(options.output, (options.stego,))

    from deepsteg_jax import api, keys

    key = keys.read_credential(options.passphrase_file, options.key_file)
    with _progress("reveal", info.frames) as bar:
        files = options.stego, options.output
        report = api.reveal_file(*files, key, progress=bar.update, announce=announce)
    print(f"{options.output}: {report.summary()}")


def _batch(options: argparse.Namespace) -> None:
    from deepsteg_jax import batch, media

    if options.job is _hide:
        choices = {"purpose": options.purpose, "scheme": options.scheme, "changes": options.changes}
        choices |= {"loop_cover": options.loop_cover, "drop_tags": options.drop_tags, "slots": options.slots}
        columns, work = batch.HIDE, batch.hide
    else:
        choices, columns, work = {}, batch.REVEAL, batch.reveal
    jobs = batch.read(options.batch, columns, options.key_file)
    path = options.results or f"{options.batch.removesuffix('.csv')}.results.csv"
    media.check_place(path, [options.batch, *(name for job in jobs for name in job.paths.values())])
    results = batch.Results(path, jobs, choices)
    left = results.left
    here = left and not options.scheduler
    workers = (options.workers or batch.fitting_workers(left, **choices)) if here else 0
    with _progress("files", len(jobs), unit="file", initial=len(jobs) - len(left)) as bar:
        for row in batch.run(left, partial(work, **choices), results, workers, options.scheduler, announce):
            if row["status"] != batch.OK:
                announce(f"{row['output']}: {row['message']}")
            bar.update()
    print(f"{path}: {results.summary()}")


def _keygen(options: argparse.Namespace) -> None:
    from deepsteg_jax import keys

    keys.write_key_file(options.output)
    print(f"{options.output}: a key for --key-file; whoever has it can reveal, keep a copy in a safe place")


def _app(options: argparse.Namespace) -> None:
    from deepsteg_jax import api, commands

    settings = commands.Options("", host=options.host, port=options.port, open=options.open)
    commands.load("app").run(api.load("video").config, settings._replace(upload_limit=options.upload_limit))


def _info(options: argparse.Namespace) -> None:
    from deepsteg_jax import api

    print(api.describe(options.file, purpose=options.purpose, slots=options.slots))


def asked(options: Any, bar: Any) -> str | bytes:
    """Read the sender's key, warn of a weak passphrase, and start the clock of a progress bar anew."""
    from deepsteg_jax import keys

    key = keys.read_credential(options.passphrase_file, options.key_file, confirm=True)
    announce(keys.weakness(key))
    bar.unpause()
    return key


def listed(given: Any) -> list[str]:
    """Return what was given never, once or several times as a list."""
    return [given] if isinstance(given, str) else list(given or ())


def asked_for_each(options: Any, bar: Any) -> list[str | bytes]:
    """Read the key of each secret, from the files that were given or at the prompt, in turn."""
    secrets, names = listed(options.secret), ("passphrase_file", "key_file")
    given = {name: files for name in names if (files := listed(getattr(options, name)))}
    found = []
    for count in map(len, given.values()):
        if count != len(secrets):
            raise UserError(f"{len(secrets)} secrets need as many keys, and {count} are given: one for each")
    for i, secret in enumerate(secrets):
        files = dict.fromkeys(names) | {name: paths[i] for name, paths in given.items()}
        if len(secrets) > 1 and not given:
            announce(f"for {secret}:")
        found.append(asked(argparse.Namespace(**files), bar))
    return found


def _progress(title: str, total: int | None, **settings: Any) -> Any:
    from deepsteg_jax.commands.common import progress_bar

    return progress_bar(title, total, **settings)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `deepsteg`; return the exit code, see `exit_code`; 2 is a mistake in the command line."""
    try:
        options = parse(sys.argv[1:] if argv is None else argv)
    except SystemExit as end:
        return int(end.code or DONE)
    return exit_code("deepsteg", lambda: options.run(options))
