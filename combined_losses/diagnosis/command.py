"""`combined-losses diagnose`: the diagnosis of a saved model on saved data."""

import argparse
import importlib
import re
import sys
import warnings
from pathlib import Path

import keras
import numpy as np

from combined_losses._core.named_arrays import NAMES, from_named
from combined_losses._core.shell import InputError, quiet_stderr, require
from combined_losses.diagnosis.batches import Data
from combined_losses.diagnosis.diagnose import diagnose
from combined_losses.diagnosis.result import Diagnosis
from combined_losses.diagnosis.terminal import text

DESCRIPTION = """Prints what every component of a saved model's loss does on data, and what is
wrong with it. The data are arrays as numpy.savez("data.npz", x=x, y=y) writes them, and
sample_weight where there are such weights; those of several inputs or outputs are x/<name> and
y/<name>."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the subcommand to those of `combined-losses`."""
    parser = subparsers.add_parser(
        "diagnose",
        help="say what every component of a saved model does, and what is wrong",
        description=DESCRIPTION,
    )
    parser.add_argument("model", type=Path, metavar="model.keras", help="a compiled model, saved")
    parser.add_argument("data", type=Path, metavar="data.npz", help="the arrays x and y")
    parser.add_argument("--html", type=Path, metavar="FILE", help="also write a page in one file")
    parser.add_argument(
        "--at",
        choices=("output", "parameters"),
        default="output",
        help="where gradients are taken (default: output)",
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, metavar="N", help="samples in a batch (default: 32)"
    )
    parser.add_argument(
        "--import",
        dest="modules",
        action="append",
        default=[],
        metavar="MODULE",
        help="a module of yours that registers losses or layers; may be given several times",
    )
    parser.set_defaults(run=run, parser=parser)


def run(args: argparse.Namespace) -> None:
    """Prints the table and writes the page; nothing is written where something is wrong."""
    if args.html is not None:
        require({"matplotlib": "matplotlib"}, "reports")
        _check_out(args.html)
    data = read_arrays(args.data)
    for module in args.modules:
        _import(module)
    found = _diagnose(_load(args.model), data, args)
    if args.html is not None:
        try:
            args.html.write_text(found.to_html(), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{args.html} cannot be written: {error.strerror}") from error
    _print(found)
    if args.html is not None:
        print(f"Written: {args.html}")


def _print(found: Diagnosis) -> None:
    """The table, drawn with what the terminal can show."""
    try:
        str(found).encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        print(text(found, plain=True))
    else:
        print(found)


def _diagnose(model: keras.Model, data: Data, args: argparse.Namespace) -> Diagnosis:
    try:
        with warnings.catch_warnings(), quiet_stderr():
            warnings.simplefilter("ignore")
            return diagnose(model, *data, batch_size=args.batch_size, at=args.at)
    except Exception as error:  # whatever a model raises on data that do not fit
        raise InputError(f"{args.model} on {args.data}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """The message of an error of Keras's, without the paragraphs around it and the bold face."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).strip() or type(error).__name__
    if "Exception encountered: " in text:  # while an object inside a file was loaded
        text = text.rpartition("Exception encountered: ")[2]
    first, *rest = text.partition(" Full object config")[0].split("\n\n")
    return rest[0] if first.startswith("Exception encountered when calling") and rest else first


def _check_out(path: Path) -> None:
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(f"--html must be a file in a folder that exists, received {str(path)!r}")


def read_arrays(path: Path) -> Data:
    """`x`, `y` and `sample_weight` of an npz file."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; give arrays saved by numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # whatever NumPy and zipfile raise on a broken file
        raise InputError(f"{path} is not a file of arrays as numpy.savez writes them") from error
    kinds = {name: name.partition("/")[0] for name in arrays}
    if "x" not in kinds.values() or not set(kinds.values()) <= set(NAMES):
        raise InputError(
            f"{path} must hold the arrays x and y, and may hold sample_weight, received "
            f"{', '.join(arrays) or 'no array'}"
        )
    for name, array in arrays.items():
        texts = "SU" if kinds[name] == "x" else ""  # a model may begin with TextVectorization
        if array.dtype.kind not in "biuf" + texts:
            raise InputError(f"{path}: {name} must hold real numbers, received {array.dtype}")
    try:
        return Data(*from_named(arrays))
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"--import {module} does not work: {reason}") from error


def _load(path: Path) -> keras.Model:
    if not path.is_file() or path.suffix != ".keras":
        raise InputError(f"{path} is not a model saved by model.save('model.keras')")
    try:
        with warnings.catch_warnings(), quiet_stderr():
            warnings.simplefilter("ignore")
            return keras.models.load_model(path)
    except Exception as error:  # whatever Keras raises on a file that it cannot read
        raise InputError(
            f"{path} cannot be loaded: {_reason(error)} (losses and layers of your own: "
            "--import the module that registers them)"
        ) from error
