"""Experiment (b): the stroke of handwritten digits, seen through noise."""

import keras
import numpy as np

import combined_losses as cl
from combined_losses.demo.comparison import Comparison, Experiment
from combined_losses.demo.training import Split

REPETITIONS = 3
EPOCHS = 12
TRAINING_IMAGES = 1200
STROKE = 6 / 16  # a pixel above this intensity belongs to the stroke
NOISE = 0.3  # standard deviation; intensities are from 0 to 1


def experiment(*, epochs: int | None, seed: int) -> Experiment:
    """Several starting weights on one split; both arms have the same starting weights each time."""
    split = _split(seed)
    train, held_out = len(split.train[0]), len(split.held_out[0])
    return Experiment(
        subject=f"{train + held_out:,} digits",
        title="Handwritten digits: which pixels are stroke, seen through noise?",
        caption=f"{held_out} held-out images; undecided: 0.1 < p < 0.9; {REPETITIONS} trainings of "
        "each network",
        arms={
            "cross-entropy": cl.CompositeLoss({"bce": "binary_crossentropy"}),
            "cross-entropy + 0.2 boundary": cl.CompositeLoss(
                {
                    "bce": "binary_crossentropy",
                    "boundary": cl.losses.BoundaryDisagreement(axes=(1, 2)),
                },
                weights={"boundary": 0.2},
            ),
        },
        build=_network,
        splits=[split] * REPETITIONS,
        epochs=epochs or EPOCHS,
        batch_size=64,
        measure=lambda repetition, y_pred: _measure(split.held_out[1], y_pred),
    )


def _split(seed: int) -> Split:
    from sklearn.datasets import load_digits

    images = load_digits().images[..., None].astype("float32") / 16
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    x = images + rng.normal(0, NOISE, images.shape).astype("float32")
    y = (images > STROKE).astype("float32")
    train, held_out = order[:TRAINING_IMAGES], order[TRAINING_IMAGES:]
    return Split(train=(x[train], y[train]), held_out=(x[held_out], y[held_out]))


def _network() -> keras.Model:
    hidden = [keras.layers.Conv2D(16, 3, padding="same", activation="relu") for _ in range(3)]
    return cl.Sequential(
        [keras.Input((8, 8, 1)), *hidden, keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )


def _measure(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    true, stroke = y_true > 0.5, y_pred > 0.5
    boundary = cl.losses.BoundaryDisagreement(axes=(1, 2))
    return {
        "boundary disagreement (%)": 100 * float(boundary(y_true, y_pred)),
        "undecided pixels (%)": 100 * np.mean((y_pred > 0.1) & (y_pred < 0.9)),
        "stroke IoU (%)": 100 * np.sum(true & stroke) / np.sum(true | stroke),
        "right pixels (%)": 100 * np.mean(true == stroke),
    }


def examples(result: Comparison, count: int = 6) -> dict[str, np.ndarray]:
    """The first held-out images with noise, their true strokes, and what each arm predicts."""
    x, y = result.experiment.splits[0].held_out
    shown = {"input": x, "true stroke": y}
    shown |= {arm: y_preds[0] for arm, y_preds in result.predictions.items()}
    return {name: images[:count, ..., 0] for name, images in shown.items()}
