"""`ComponentPlot`: a picture of the components while they train."""

import os
from pathlib import Path

from combined_losses import plots
from combined_losses._core.keras_types import KerasCallback
from combined_losses._core.names import listed
from combined_losses.plots.style import make_room
from combined_losses.training import routing
from combined_losses.training.keeping import leave_weights, tracking_of

__all__ = ["ComponentPlot"]


class ComponentPlot(KerasCallback):
    """Writes a picture of the components and of their shares of the loss, after each epoch.

    On the left `plots.components`, on the right `plots.shares`, of the run so far; values that are
    not finite are gaps. Needs no display, and leaves pyplot as it is. Needs matplotlib:
    `pip install "combined_losses[reports]"`.

    A training that goes on with the same callback (`fit(initial_epoch=5, epochs=10)` after
    `fit(epochs=5)`) goes on in the picture. What begins with epoch 1 again is drawn anew: an epoch
    replaces what was drawn of it, and of later ones.

    Args:
        path: the file; its suffix gives the format, one that matplotlib writes: png, pdf, svg, …
            It is overwritten, at once, so that a viewer never sees half a picture; or it contains
            `{epoch}`, as `"curves_{epoch:03d}.png"`, which counts from 1. Folders are made.
        every: draw after every so many epochs, and after the last one. A picture takes some tenths
            of a second.

    Raises:
        ImportError: where matplotlib is not installed.
        ValueError: if matplotlib cannot write the format, `every` is no whole number from 1, or
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

    def __init__(self, path, every=1):
        super().__init__()
        self.path, self.every = os.fspath(path), every
        self._check_path()
        if not isinstance(every, int) or every < 1:
            raise ValueError(
                f"`every` must be a whole number of epochs from 1. Received: {every!r}"
            )
        self._rows = {}  # epoch -> logs
        self._drawn = True

    def _check_path(self):
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

    def on_train_begin(self, logs=None):
        if not routing.compounds(getattr(self.model, "loss", None)):
            raise ValueError(
                "ComponentPlot draws the components of a composite: compile the model with a "
                f"cl.CompositeLoss. Received: loss={getattr(self.model, 'loss', None)!r}"
            )

    def on_epoch_end(self, epoch, logs=None):
        tracking = tracking_of(self.model)
        # A weight is not in the logs before it changes; in the picture it has to be.
        weights = {} if tracking is None else tracking.weights(all_of_them=True)
        self._rows = {e: row for e, row in self._rows.items() if e < epoch}
        self._rows[epoch] = {**weights, **(logs or {})}
        self._drawn = False
        if (epoch + 1) % self.every == 0:
            self._draw()

    def on_train_end(self, logs=None):
        if not self._drawn:
            self._draw()

    def _draw(self):
        figure = _new_figure()
        left, right = figure.subplots(1, 2)
        run = _Run(self._rows, self.model)
        leave_weights(self.model, run)
        plots.components(run, left)
        plots.shares(run, right)
        make_room(figure)
        _save(figure, Path(self.path.format(epoch=max(self._rows) + 1)))
        self._drawn = True


class _Run:
    """What the figures read of a `History`; None where an epoch has no value of a key."""

    def __init__(self, rows, model):
        keys = dict.fromkeys(key for row in rows.values() for key in row)
        self.history = {key: [row.get(key) for row in rows.values()] for key in keys}
        self.epoch = list(rows)
        self.model = model  # a plain one tells its weights itself


def _new_figure():
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            'ComponentPlot draws with matplotlib: pip install "combined_losses[reports]"'
        ) from error
    return Figure(figsize=(10, 4), layout="constrained")


def _save(figure, path):
    """Saves beside the final name first: half a file is never seen under it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(half, format=path.suffix.lower().removeprefix("."), dpi=120)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
