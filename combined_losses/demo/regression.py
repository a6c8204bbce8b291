"""Experiment (a): numbers whose underestimation is the costly side."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

import combined_losses as cl
from combined_losses.demo.comparison import Comparison, Experiment
from combined_losses.demo.tables import Table
from combined_losses.demo.training import Split

FOLDS = 5
EPOCHS = 8
# Batches of about 32 for the diabetes data; for a large file an epoch takes no more steps.
STEPS_PER_EPOCH = 11


@dataclass(frozen=True)
class Fold:
    """One part of the rows held out; the networks see numbers of mean 0 and deviation 1."""

    held_out: np.ndarray  # indices of rows
    split: Split
    to_unit: Callable[[np.ndarray], np.ndarray]  # predictions in the target's unit


def make_folds(table: Table, *, seed: int) -> list[Fold]:
    """The folds of a cross-validation, in an order drawn from `seed`."""
    order = np.random.default_rng(seed).permutation(len(table.y))
    return [_fold(table, held_out) for held_out in np.array_split(order, FOLDS)]


def _fold(table: Table, held_out: np.ndarray) -> Fold:
    train = np.delete(np.arange(len(table.y)), held_out)
    x_mean, x_scale = _mean_and_scale(table.x[train])
    y_mean, y_scale = _mean_and_scale(table.y[train, None])
    # A missing value becomes 0, the mean of the training rows.
    x = np.nan_to_num((table.x - x_mean) / x_scale, nan=0.0).astype("float32")
    y = ((table.y[:, None] - y_mean) / y_scale).astype("float32")
    split = Split(train=(x[train], y[train]), held_out=(x[held_out], y[held_out]))
    return Fold(held_out, split, lambda y_pred: (y_pred.astype("float64") * y_scale + y_mean)[:, 0])


def _mean_and_scale(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the values that are not missing; 0 and 1 where all are."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column without values
        mean, deviation = np.nanmean(columns, axis=0), np.nanstd(columns, axis=0)
    varies = deviation > 1e-12 * np.abs(mean)
    return np.nan_to_num(mean, nan=0.0), np.where(varies, deviation, 1.0)


def experiment(table: Table, folds: list[Fold], *, epochs: int | None) -> Experiment:
    """Cross-validation: every row is predicted by a network that has not seen it."""
    rows = f"{len(table.y):,} {table.rows}"
    return Experiment(
        subject=rows,
        title=f"{table.name}, {rows}: underestimating is the costly side",
        caption=f"error = predicted - true; {FOLDS}-fold cross-validation: every row is "
        "predicted by a network that has not seen it",
        arms={
            "MSE alone": cl.CompositeLoss({"mse": "mse"}),
            "MSE + penalty": cl.CompositeLoss(
                {"mse": "mse", "under": cl.losses.UnderestimationPenalty(weight=2.0)}
            ),
        },
        build=lambda: _network(table.x.shape[1]),
        splits=[fold.split for fold in folds],
        epochs=epochs or EPOCHS,
        learning_rate=9e-3,
        batch_size=max(2, len(folds[0].split.train[0]) // STEPS_PER_EPOCH),
        measure=lambda repetition, outcome: _measure(
            table, _error(table, folds[repetition], outcome.y_pred)
        ),
    )


def _network(inputs: int) -> keras.Model:
    return cl.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(32, activation="relu"),
            keras.layers.Dense(1),
        ]
    )


def _error(table: Table, fold: Fold, y_pred: np.ndarray) -> np.ndarray:
    error: np.ndarray = fold.to_unit(y_pred) - table.y[fold.held_out]
    return error


def _measure(table: Table, error: np.ndarray) -> dict[str, float]:
    return {
        f"underestimated {table.rows} (%)": 100 * np.mean(error < 0),
        f"mean shortfall ({table.unit})": np.mean(np.maximum(-error, 0)),
        f"mean error ({table.unit})": np.mean(error),
        f"MSE ({table.unit}²)": np.mean(error**2),
    }


def held_out_errors(result: Comparison, table: Table, folds: list[Fold]) -> dict[str, np.ndarray]:
    """The errors of all rows in the target's unit, by arm."""
    return {
        arm: np.concatenate(
            [_error(table, fold, out.y_pred) for fold, out in zip(folds, outcomes, strict=True)]
        )
        for arm, outcomes in result.outcomes.items()
    }
