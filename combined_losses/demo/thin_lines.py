"""Experiment (b): thin lines, 5 % of the pixels, in noisy images that are drawn here.

Cross-entropy alone first learns that nearly every pixel is background, and stays there for long:
the few pixels of the lines count for little. Dice counts the overlap with the line alone, so both
together find the line sooner. Later cross-entropy alone nearly catches up, so the demo looks twice.
"""

import keras
import numpy as np

import combined_losses as cl
from combined_losses.demo.comparison import Comparison, Experiment, Outcome
from combined_losses.demo.training import Split

REPETITIONS = 3
EPOCHS = 8
SIZE = 20  # pixels along each side
TRAINING_IMAGES, HELD_OUT_IMAGES = 256, 64
NOISE = 0.4  # standard deviation; a line is 1, the background 0


def experiment(*, epochs: int | None, seed: int) -> Experiment:
    """Each repetition has its own images and starting weights, the same for both arms."""
    splits = [_split(seed + repetition) for repetition in range(REPETITIONS)]
    epochs = epochs or EPOCHS
    share = 100 * np.mean([split.held_out[1].mean() for split in splits])
    return Experiment(
        subject="thin lines",
        title=f"Thin lines in noise, {share:.1f} % of the pixels: which pixels are line?",
        caption=f"{REPETITIONS} trainings of each network, each on its own {TRAINING_IMAGES} "
        f"images, measured on {HELD_OUT_IMAGES} others; found: line pixels "
        "with p > 0.5; false pixels: at the end",
        arms={
            "cross-entropy": cl.CompositeLoss({"bce": "binary_crossentropy"}),
            "cross-entropy + Dice": cl.CompositeLoss(
                {"bce": "binary_crossentropy", "dice": cl.losses.Dice()}
            ),
        },
        build=_network,
        splits=splits,
        epochs=epochs,
        halfway=halfway(epochs),
        batch_size=16,
        learning_rate=2.5e-2,
        measure=lambda repetition, outcome: _measure(
            splits[repetition].held_out[1], outcome, epochs
        ),
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
    hidden = [keras.layers.Conv2D(8, 3, padding="same", activation="relu") for _ in range(3)]
    return cl.Sequential(
        [keras.Input((SIZE, SIZE, 1)), *hidden, keras.layers.Conv2D(1, 1, activation="sigmoid")]
    )


def halfway(epochs: int) -> int:
    """The epoch after which both networks are looked at for the first time."""
    return max(1, epochs // 2)


def _measure(y_true: np.ndarray, outcome: Outcome, epochs: int) -> dict[str, float]:
    true = y_true > 0.5
    looks = {halfway(epochs): outcome.halfway > 0.5, epochs: outcome.y_pred > 0.5}
    found = {_found(epoch): 100 * float(np.mean(look[true])) for epoch, look in looks.items()}
    dice = {f"Dice score, epoch {epoch} (%)": _dice(true, look) for epoch, look in looks.items()}
    false_pixels = np.sum(looks[epochs] & ~true) / len(true)
    return {**found, **dice, "false pixels an image": float(false_pixels)}


def _found(epoch: int) -> str:
    return f"found, epoch {epoch} (%)"


def _dice(true: np.ndarray, found: np.ndarray) -> float:
    """Twice the pixels in both, by the pixels of each, in per cent; 0 where nothing is found."""
    return float(200 * np.sum(true & found) / (np.sum(true) + np.sum(found)))


def examples(result: Comparison, count: int = 8) -> dict[str, np.ndarray]:
    """The first held-out images, their lines, and what each arm finds halfway and at the end."""
    x, y = result.experiment.splits[0].held_out
    shown = {"image": x, "truth": y > 0.5}
    end = result.experiment.epochs
    for epoch in sorted({halfway(end), end}):
        for arm, outcomes in result.outcomes.items():
            y_pred = outcomes[0].y_pred if epoch == end else outcomes[0].halfway
            found = np.mean(result.scores[arm][_found(epoch)])
            shown[f"{arm}, epoch {epoch}: finds {found:.0f} %"] = y_pred > 0.5
    return {name: images[:count, ..., 0] for name, images in shown.items()}
