"""`ComponentPlot`: a picture of the components while they train."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from combined_losses import plots
from combined_losses._core.keras_types import KerasCallback, Logs
from combined_losses._core.names import listed
from combined_losses.plots.style import make_room
from combined_losses.training import routing
from combined_losses.training.for_callbacks import describe_weights
from combined_losses.training.model_state import tracking_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ComponentPlot"]


class ComponentPlot(KerasCallback):
    """Writes a picture of the components and of their shares of the loss, after each epoch.

    On the left `plots.components`, on the right `plots.shares`, of the run so far; values that are
    not finite are gaps. It needs no display, leaves pyplot as it is, and needs matplotlib:
    `pip install "combined_losses[reports]"`.

    If training is resumed with the same callback (`fit(initial_epoch=5, epochs=10)` after
    `fit(epochs=5)`), the curves are continued. An epoch that is trained again replaces what was
    drawn of it and of all later ones, so a new training from epoch 1 starts a new picture.

    Args:
        path: the file. Its suffix is a format that matplotlib writes: png, pdf, svg, … The file is
            replaced after each drawing, in one go, so that a viewer never sees half a picture. If
            the path contains `{epoch}`, as in `"curves_{epoch:03d}.png"`, each drawing gets a file
            of its own; epochs count from 1. Missing folders are made.
        every: draw after every so many epochs, and after the last one. Default 1. A picture takes
            some tenths of a second.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if matplotlib cannot write the format, `every` is not a whole number from 1, or
            the model is compiled without a composite.

    Example:

    >>> import os
    >>> import tempfile
    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> x, y = np.ones((4, 1)), np.ones((4, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot = cl.callbacks.ComponentPlot(f"{folder}/curves_{{epoch}}.png", every=2)
    ...     history = model.fit(x, y, epochs=5, verbose=0, callbacks=[plot])
    ...     print(sorted(os.listdir(folder)))
    ['curves_2.png', 'curves_4.png', 'curves_5.png']
    """

    def __init__(self, path: "str | os.PathLike[str]", every: int = 1) -> None:
        super().__init__()
        self.path: str = os.fspath(path)
        self.every = every
        self._check_path()
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"`every` must be a whole number of epochs from 1. Received: {every!r}"
            )
        self._logs_by_epoch: dict[int, dict[str, Any]] = {}
        self._is_drawn = True

    def _check_path(self) -> None:
        figure = _new_figure()
        try:
            suffix = Path(self.path.format(epoch=1)).suffix.lower().removeprefix(".")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(
                "`path` may contain {epoch} or {epoch:03d} and no other braces; write {{ for a "
                f"brace. Received: {self.path!r}"
            ) from error
        formats = sorted(figure.canvas.get_supported_filetypes())
        if suffix not in formats:
            raise ValueError(
                "`path` must end in a format that matplotlib writes: "
                f"{listed([f'.{name}' for name in formats], 'or')}. Received: {self.path!r}"
            )

    def on_train_begin(self, logs: Logs = None) -> None:
        if not routing.compounds(getattr(self.model, "loss", None)):
            raise ValueError(
                "ComponentPlot draws the components of a composite: compile the model with a "
                f"cl.CompositeLoss. Received: loss={getattr(self.model, 'loss', None)!r}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        tracking = tracking_of(self.model)
        # The logs have a weight only once it has changed; the picture needs all of them.
        weights = {} if tracking is None else tracking.weights(all_of_them=True)
        earlier = {e: row for e, row in self._logs_by_epoch.items() if e < epoch}
        self._logs_by_epoch = {**earlier, epoch: {**weights, **(logs or {})}}
        self._is_drawn = False
        if (epoch + 1) % self.every == 0:
            self._draw()

    def on_train_end(self, logs: Logs = None) -> None:
        if not self._is_drawn:
            self._draw()

    def _draw(self) -> None:
        figure = _new_figure()
        left, right = figure.subplots(1, 2)
        run = _Run(self._logs_by_epoch, self.model)
        describe_weights(self.model, run)
        plots.components(run, left)
        plots.shares(run, right)
        make_room(figure)
        _save(figure, Path(self.path.format(epoch=max(self._logs_by_epoch) + 1)))
        self._is_drawn = True


class _Run:
    """What the figures read of a `History`; None for an epoch without a value of a key."""

    def __init__(self, logs_by_epoch: dict[int, dict[str, Any]], model: Any) -> None:
        rows = list(logs_by_epoch.values())
        keys = dict.fromkeys(key for row in rows for key in row)
        self.history = {key: [row.get(key) for row in rows] for key in keys}
        self.epoch = list(logs_by_epoch)
        self.model = model  # the weights of a composite in a plain model are read from its loss


def _new_figure() -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'ComponentPlot draws with matplotlib: pip install "combined_losses[reports]"'
        ) from error
    return Figure(figsize=(10, 4), layout="constrained")


def _save(figure: "Figure", path: Path) -> None:
    """Saves under another name, then renames: the file at `path` is never unfinished."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(unfinished, format=path.suffix.lower().removeprefix("."), dpi=120)
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
