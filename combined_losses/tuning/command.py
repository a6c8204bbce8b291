"""`combined-losses search` and `compare`: a script of the user's, and data in a file."""

import argparse
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from combined_losses._core.shell import InputError, require
from combined_losses.diagnosis.command import read_arrays
from combined_losses.tuning.arguments import NEEDED
from combined_losses.tuning.comparing import compare
from combined_losses.tuning.searching import search
from combined_losses.tuning.settings import RULE
from combined_losses.tuning.shown import Shown

DATA = """The script is yours: `train.py:build` names a function in train.py that takes nothing and
returns a new compiled model. The data are arrays as numpy.savez("data.npz", x=x, y=y) writes them,
and sample_weight where there are such weights."""


def add_search(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `search` to the subcommands of `combined-losses`."""
    parser = subparsers.add_parser(
        "search",
        help="search for the weights that your data want",
        description="Searches for the weights of a composite by trainings on your data. " + DATA,
    )
    _add_shared(parser)
    parser.add_argument(
        "--weights",
        nargs="+",
        default=[],
        metavar="NAME=LOW:HIGH",
        help="components with the range of their weight, such as under=0.01:10",
    )
    parser.add_argument(
        "--rules", nargs="+", metavar="RULE", help="rules to choose from, such as none UPGrad FAMO"
    )
    parser.add_argument("--trials", type=int, default=40, help="settings to try (default: 40)")
    parser.add_argument("--seeds", type=int, default=2, help="trainings of each (default: 2)")
    parser.add_argument(
        "--storage",
        default="search.db",
        metavar="FILE",
        help="where the trials are kept, so that a search goes on (default: search.db)",
    )
    parser.set_defaults(run=run_search, parser=parser)


def add_compare(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `compare` to the subcommands of `combined-losses`."""
    parser = subparsers.add_parser(
        "compare",
        help="train with one rule after the other on your data",
        description="Trains a composite with one rule for its weights after the other. " + DATA,
    )
    _add_shared(parser)
    parser.add_argument(
        "--rules", nargs="+", metavar="RULE", help="such as UPGrad FAMO (default: every rule)"
    )
    parser.add_argument("--seeds", type=int, default=5, help="trainings of each (default: 5)")
    parser.add_argument(
        "--storage", metavar="FILE", help="where the trainings are kept (default: in memory)"
    )
    parser.set_defaults(run=run_compare, parser=parser)


def _add_shared(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("build", metavar="train.py:build", help="a script and a function in it")
    parser.add_argument("data", type=Path, metavar="data.npz", help="the arrays x and y")
    parser.add_argument(
        "--objective",
        nargs="+",
        required=True,
        metavar="KEY:min|max",
        help="log keys with their directions, such as val_mae:min",
    )
    parser.add_argument(
        "--validation",
        default="0.2",
        metavar="SHARE|FILE",
        help="a share of the data, or another data.npz (default: 0.2)",
    )
    parser.add_argument("--epochs", type=int, default=10, help="of each training (default: 10)")
    parser.add_argument("--batch-size", type=int, default=32, help="samples in one (default: 32)")
    parser.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page in one file")


def run_search(args: argparse.Namespace) -> None:
    parameters: dict[str, Any] = dict(map(_range_of, args.weights))
    if args.rules:
        parameters[RULE] = list(args.rules)
    if not parameters:
        raise InputError("nothing to search: give --weights NAME=LOW:HIGH, or --rules")
    options = {"parameters": parameters, "trials": args.trials, "storage": args.storage}
    _run(args, search, options)


def run_compare(args: argparse.Namespace) -> None:
    _run(args, compare, {"rules": args.rules, "storage": args.storage})


def _run(args: argparse.Namespace, function: Callable[..., Shown], options: dict[str, Any]) -> None:
    require({name: name for name in NEEDED}, "search")
    html: Path | None = args.html
    if html is not None and (html.is_dir() or not html.absolute().parent.is_dir()):
        raise InputError(f"--html must be a file in a folder that exists, received {str(html)!r}")
    data = tuple(each for each in read_arrays(args.data) if each is not None)
    try:
        found = function(
            _function_in(args.build),
            data,
            objectives=args.objective,
            validation=_validation(args.validation),
            seeds=args.seeds,
            seed=args.seed,
            epochs=args.epochs,
            batch_size=args.batch_size,
            **options,
        )
    except ValueError as error:
        raise InputError(str(error)) from error
    print(found)
    if html is not None:
        try:
            found.to_html(html)
        except OSError as error:
            raise InputError(f"{html} cannot be written: {error.strerror}") from error
        print(f"Written: {html}")


def _range_of(text: str) -> tuple[str, tuple[float, float]]:
    name, _, ends = text.partition("=")
    try:
        low, high = map(float, ends.split(":"))
    except ValueError as error:
        raise InputError(
            f"--weights takes NAME=LOW:HIGH, such as under=0.01:10, received {text!r}"
        ) from error
    return name, (low, high)


def _validation(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return tuple(each for each in read_arrays(Path(text)) if each is not None)


def _function_in(text: str) -> Callable[[], Any]:
    """The function that `train.py:build` names."""
    path, _, name = text.rpartition(":")
    if not path or not Path(path).is_file():
        raise InputError(f"the first argument is FILE.py:FUNCTION, received {text!r}")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    assert spec is not None and spec.loader is not None  # of a file that exists
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(Path(path).absolute().parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} does not run: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"{path} has no function {name!r}")
    return function  # type: ignore[no-any-return]  # it is checked to be one
