"""The command `combined-losses`, also `python -m combined_losses`."""

import argparse
import io
import sys
from typing import NoReturn

from combined_losses import demo
from combined_losses._core.shell import EXIT_USAGE, CommandError
from combined_losses._version import __version__
from combined_losses.diagnosis import command as diagnose

# Every subcommand is a module with a function `add_parser(subparsers)`. The parser that it adds has
# two defaults: `run`, a function of the parsed arguments, and `parser`, itself. What is slow to
# import is imported by `run`, after its checks.
SUBCOMMANDS = (demo, diagnose)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command, with all subcommands."""
    parser = _Parser(
        prog="combined-losses",
        description="Name your losses, and train, watch, balance and save them as one.",
    )
    parser.add_argument("--version", action="version", version=f"combined_losses {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", required=True)
    for subcommand in SUBCOMMANDS:
        subcommand.add_parser(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code, 2 where the user gave something wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may be unable to show a name
            stream.reconfigure(errors="replace")
    args, unknown = build_parser().parse_known_args(argv)
    if unknown:  # the subcommand's own parser reports it, so that the user reads its --help
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        args.run(args)
    except CommandError as error:
        message = " ".join(str(error).split())  # one line, whatever a file name holds
        print(f"combined-losses {args.command}: error: {message}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"combined-losses {args.command}: stopped, nothing was written", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
