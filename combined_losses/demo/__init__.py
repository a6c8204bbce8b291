"""`combined-losses demo`: two composites against their main loss alone, on real data."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from combined_losses._core.shell import quiet_stderr, require
from combined_losses.demo.folder import check_out
from combined_losses.demo.tables import check_data, read_table

NEEDS = {"matplotlib": "matplotlib", "rich": "rich", "sklearn": "scikit-learn"}

DESCRIPTION = """Trains on real data that comes with scikit-learn; nothing is downloaded.
(a) Diabetes progression, where underestimating is the costly side: MSE alone against MSE +
underestimation penalty. (b) Handwritten digits, stroke against background from noisy pixels:
cross-entropy alone against cross-entropy + 0.2 boundary disagreement. With --data it runs (a)
on your numbers."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand to those of `combined-losses`."""
    parser = subparsers.add_parser(
        "demo", help="train two composites on real data, in under a minute", description=DESCRIPTION
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
        help="comma-separated numbers with a header line; every column but --target is an input",
    )
    parser.add_argument("--target", metavar="COLUMN", help="the column of --data to predict")
    _add_training_arguments(parser)
    parser.set_defaults(run=run, parser=parser)


def _add_training_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--epochs",
        type=_whole_number(1, 10_000),
        metavar="N",
        help="epochs of every training (default: 20 in (a), 12 in (b))",
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
    table = None if args.data is None else read_table(args.data, args.target)
    require(NEEDS, "demo")
    with quiet_stderr():
        from combined_losses.demo.command import run_demo
    # TensorFlow takes several small networks, trained one after another, for needless retracing and
    # warns of it.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    run_demo(args, table)
