"""One network trained twice on the same data, with its main loss alone and with a composite."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

import combined_losses as cl
from combined_losses.demo.folder import write_history
from combined_losses.demo.training import (
    Advance,
    Look,
    Split,
    Trainer,
    predict,
    save_and_check,
    tensorboard,
)


@dataclass(frozen=True)
class Outcome:
    """What one training gives: predictions of the held-out inputs."""

    y_pred: np.ndarray
    halfway: np.ndarray  # after the epoch that the experiment names; else y_pred


@dataclass(frozen=True)
class Experiment:
    """What is compared, and how it is measured."""

    subject: str  # what the networks are trained on, in short
    title: str
    caption: str
    arms: dict[str, cl.CompositeLoss]  # the main loss alone, then the composite
    build: Callable[[], keras.Model]
    splits: list[Split]  # one for each repetition
    epochs: int
    batch_size: int
    measure: Callable[[int, Outcome], dict[str, float]]  # of a repetition
    learning_rate: float = 3e-3
    halfway: int | None = None  # an epoch, from 1, after which predictions are made too


@dataclass
class Comparison:
    """The results: `scores[arm][label]` and `outcomes[arm]` have one entry a repetition."""

    experiment: Experiment
    scores: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    outcomes: dict[str, list[Outcome]] = field(default_factory=dict)
    # These are of the composite in the first repetition, whose model is saved.
    history: keras.callbacks.History | None = None
    evaluated: dict[str, float] = field(default_factory=dict)
    has_tensorboard: bool = False

    @property
    def labels(self) -> list[str]:
        """What is measured, in order."""
        return list(next(iter(self.scores.values())))

    def values(self, label: str) -> list[np.ndarray]:
        """The scores of a label: for each arm an array over the repetitions."""
        return [np.array(scores[label]) for scores in self.scores.values()]


def compare(
    experiment: Experiment, folder: Path, *, seed: int, step: Callable[[], None]
) -> Comparison:
    """Trains both arms once for each split; calls `step` after each epoch.

    What the composite gives in the first repetition is written into `folder`.
    """
    folder.mkdir(exist_ok=True)
    trainers = {
        arm: Trainer(experiment.build, loss, experiment.learning_rate)
        for arm, loss in experiment.arms.items()
    }
    result = Comparison(experiment)
    for repetition, split in enumerate(experiment.splits):
        for arm, trainer in trainers.items():
            first = repetition == 0
            events = tensorboard(folder / "tensorboard" / _slug(arm)) if first else []
            look = Look(split.held_out[0], experiment.halfway)
            history = trainer.fit(
                split,
                seed=seed + repetition,
                validate=first,
                epochs=experiment.epochs,
                batch_size=experiment.batch_size,
                callbacks=[Advance(step), look, *events],
            )
            y_pred = predict(trainer.model, split.held_out[0])
            halfway = y_pred if look.y_pred is None else look.y_pred
            _record(result, arm, repetition, Outcome(y_pred, halfway))
            if first and arm == list(trainers)[-1]:
                result.has_tensorboard = bool(events)
                _save(result, history, split, folder)
    return result


def _slug(arm: str) -> str:
    """The name of an arm as the name of a folder, which TensorBoard shows."""
    return arm.replace("\n", " ").replace(" + ", "_and_").replace(" ", "_")


def _record(result: Comparison, arm: str, repetition: int, outcome: Outcome) -> None:
    result.outcomes.setdefault(arm, []).append(outcome)
    scores = result.scores.setdefault(arm, {})
    for label, value in result.experiment.measure(repetition, outcome).items():
        scores.setdefault(label, []).append(float(value))


def _save(result: Comparison, history: keras.callbacks.History, split: Split, folder: Path) -> None:
    """Writes history and model into the folder, and what the model evaluates to into the result."""
    result.history = history
    write_history(folder / "history.csv", history.history)
    result.evaluated = save_and_check(history.model, folder / "model.keras", split.held_out)
