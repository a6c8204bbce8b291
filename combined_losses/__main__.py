"""The command `combined-losses`, also `python -m combined_losses`."""

import argparse
import io
import sys
from typing import NoReturn

from combined_losses._core.shell import EXIT_USAGE, CommandError, load_package
from combined_losses._version import __version__

# The subcommands, and what the help says of them.
SUBCOMMANDS = {
    "demo": "train two composites, in about a minute",
    "diagnose": "say what every component of a saved model does, and what is wrong",
    "search": "search for the weights that your data want",
    "compare": "train with one rule after the other on your data",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def build_parser(asked: str | None) -> argparse.ArgumentParser:
    """The parser of the command; of the subcommands only the one asked for has its arguments."""
    parser: argparse.ArgumentParser = _Parser(
        prog="combined-losses",
        description="Name your losses, and train, watch, balance and save them as one.",
    )
    parser.add_argument("--version", action="version", version=f"combined_losses {__version__}")
    subparsers = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND")
    for name, summary in SUBCOMMANDS.items():
        if name == asked:
            _add_subcommand(name, subparsers)
        else:
            subparsers.add_parser(name, help=summary)
    return parser


def _add_subcommand(
    name: str, subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]"
) -> None:
    """Adds the parser of a subcommand, from its module, which is imported for it alone.

    The parser has two defaults: `run`, a function of the parsed arguments, and `parser`, itself.
    """
    if name == "demo":  # it imports Keras when its checks are done
        from combined_losses import demo

        demo.add_parser(subparsers)
        return
    load_package()
    if name == "diagnose":
        from combined_losses.diagnosis import command

        command.add_parser(subparsers)
    else:
        from combined_losses.tuning import command as tuning

        {"search": tuning.add_search, "compare": tuning.add_compare}[name](subparsers)


def main(argv: list[str] | None = None) -> int:
    """Runs the command; returns its exit code, 2 where the user gave something wrong."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may be unable to show a name
            stream.reconfigure(errors="replace")
    words = sys.argv[1:] if argv is None else argv
    parser = build_parser(next((word for word in words if word in SUBCOMMANDS), None))
    args, unknown = parser.parse_known_args(words)
    if args.command is None:
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        parser.print_help()
        return 0
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
