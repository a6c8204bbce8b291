"""`combined-losses demo`: two composites against their main loss alone, on real data."""

import argparse
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from combined_losses._core.shell import load_package, quiet_stderr, require
from combined_losses.demo.folder import check_out
from combined_losses.demo.tables import MISSING_CHOICES, check_data, read_table

NEEDS = {name: name for name in ("matplotlib", "pandas", "rich")} | {"sklearn": "scikit-learn"}

DESCRIPTION = """Trains the same network with one loss and with two; nothing is downloaded.
(a) Diabetes progression, data of scikit-learn, where underestimating is the costly side: MSE alone
against MSE + underestimation penalty. (b) Thin lines in noisy images, drawn by the demo:
cross-entropy alone against cross-entropy + Dice. With --data it runs (a) on your table."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand to those of `combined-losses`."""
    parser = subparsers.add_parser(
        "demo", help="train two composites, in under a minute", description=DESCRIPTION
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="folder for the results: new, empty or of an earlier demo (default: runs/demo)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        metavar="FILE.csv",
        help="a CSV file: separator and decimal sign are found, texts become columns of 0 and 1, "
        "ids are dropped; the demo prints what it does",
    )
    parser.add_argument(
        "--target", metavar="COLUMN", help="the column of --data to predict, which holds numbers"
    )
    parser.add_argument(
        "--missing",
        choices=tuple(MISSING_CHOICES),
        default="mean",
        help="what becomes of missing inputs: the mean of their column, or their rows are dropped "
        "(default: mean)",
    )
    parser.add_argument(
        "--max-rows",
        type=_whole_number(20, 10_000_000),
        default=50_000,
        metavar="N",
        help="of a longer --data use N rows, drawn at random (default: 50000)",
    )
    _add_training_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--epochs",
        type=_whole_number(1, 10_000),
        metavar="N",
        help="epochs of every training (default: 8)",
    )
    parser.add_argument(
        "--seed",
        type=_whole_number(0, 1_000_000),
        default=0,
        metavar="N",
        help="of the starting weights, the order of the data and the noise (default: 0)",
    )


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if text.strip().isdecimal() and low <= int(text) <= high:
            return int(text)
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {low} to {high}, received {text!r}"
        )

    return convert


def run(args: argparse.Namespace) -> None:
    """Checks all arguments, then trains; writes nothing unless all of it works."""
    check_data(args.data, args.target)
    check_out(args.out)
    require(NEEDS, "demo")
    table = None
    if args.data is not None:
        how = {"missing": args.missing, "max_rows": args.max_rows, "seed": args.seed}
        table = read_table(args.data, args.target, **how)
    with _loading(), quiet_stderr():
        load_package()
        from combined_losses.demo.command import run_demo
    # TensorFlow takes several small networks, trained one after another, for needless retracing and
    # warns of it.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    run_demo(args, table)


def _loading() -> contextlib.AbstractContextManager[object]:
    """Says in a terminal why nothing happens yet."""
    from rich.console import Console

    return Console().status("loading Keras and its backend")
