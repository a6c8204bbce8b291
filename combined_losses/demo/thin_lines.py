"""Experiment (b): thin lines, 5 % of the pixels, in noisy images that are drawn here."""

import keras
import numpy as np

import combined_losses as cl
from combined_losses.demo.comparison import Comparison, Experiment
from combined_losses.demo.training import Split

REPETITIONS = 3
EPOCHS = 15
SIZE = 20  # pixels along each side
TRAINING_IMAGES, HELD_OUT_IMAGES = 128, 64
NOISE = 0.4  # standard deviation; a line is 1, the background 0
FOUND = "line pixels found (%)"


def experiment(*, epochs: int | None, seed: int) -> Experiment:
    """Each repetition has its own images and starting weights, the same for both arms."""
    splits = [_split(seed + repetition) for repetition in range(REPETITIONS)]
    share = 100 * np.mean([split.held_out[1].mean() for split in splits])
    return Experiment(
        subject="thin lines",
        title=f"Thin lines in noise, {share:.1f} % of the pixels: which pixels are line?",
        caption=f"{REPETITIONS} trainings of each network, each on its own {TRAINING_IMAGES} "
        f"images, measured on {HELD_OUT_IMAGES} others; found: p > 0.5; best threshold: the one "
        "that suits each network, chosen with hindsight",
        arms={
            "cross-entropy": cl.CompositeLoss({"bce": "binary_crossentropy"}),
            "cross-entropy + Dice": cl.CompositeLoss(
                {"bce": "binary_crossentropy", "dice": cl.losses.Dice()}
            ),
        },
        build=_network,
        splits=splits,
        epochs=epochs or EPOCHS,
        batch_size=16,
        learning_rate=1e-2,
        measure=lambda repetition, y_pred: _measure(splits[repetition].held_out[1], y_pred),
    )


def _split(seed: int) -> Split:
    rng = np.random.default_rng(seed)
    y = np.stack([_line(rng) for _ in range(TRAINING_IMAGES + HELD_OUT_IMAGES)])[..., None]
    x = (y + rng.normal(0, NOISE, y.shape)).astype("float32")
    train, held_out = slice(TRAINING_IMAGES), slice(TRAINING_IMAGES, None)
    return Split(train=(x[train], y[train]), held_out=(x[held_out], y[held_out]))


def _line(rng: np.random.Generator) -> np.ndarray:
    """A mask with one curve, a pixel wide, from side to side."""
    step = np.arange(SIZE)
    bend = rng.normal(0, 2) * np.sin(step / SIZE * np.pi * rng.uniform(0.5, 2) + rng.uniform(0, 6))
    place = SIZE * rng.uniform(0.25, 0.75) + bend + (step - SIZE / 2) * rng.uniform(-0.6, 0.6)
    mask = np.zeros((SIZE, SIZE), "float32")
    mask[step, np.clip(np.round(place), 0, SIZE - 1).astype(int)] = 1
    return mask if rng.random() < 0.5 else mask.T


def _network() -> keras.Model:
    hidden = [
        keras.layers.Conv2D(8, 3, padding="same", activation="relu", dilation_rate=rate)
        for rate in (1, 2, 1)
    ]
    return cl.Sequential(
        [keras.Input((SIZE, SIZE, 1)), *hidden, keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )


def _measure(y_true: np.ndarray, y_pred: np.ndarray) -> dict[str, float]:
    true, found = y_true > 0.5, y_pred > 0.5
    best = max(_dice(true, y_pred > threshold) for threshold in np.linspace(0.02, 0.98, 49))
    return {
        FOUND: 100 * float(np.mean(found[true])),
        "false pixels an image": float(np.sum(found & ~true) / len(true)),
        "Dice score (%)": 100 * _dice(true, found),
        "Dice, best threshold (%)": 100 * best,
    }


def _dice(true: np.ndarray, found: np.ndarray) -> float:
    """Twice the pixels in both, by the pixels of each; 0 where nothing is found."""
    return float(2 * np.sum(true & found) / (np.sum(true) + np.sum(found)))


def examples(result: Comparison, count: int = 8) -> dict[str, np.ndarray]:
    """The first held-out images, their lines, and what each arm finds, with the share it finds."""
    x, y = result.experiment.splits[0].held_out
    shown = {"image": x, "truth": y > 0.5}
    for arm, y_preds in result.predictions.items():
        found = np.mean(result.scores[arm][FOUND])
        shown[f"{arm}: finds {found:.0f} %"] = y_preds[0] > 0.5
    return {name: images[:count, ..., 0] for name, images in shown.items()}
