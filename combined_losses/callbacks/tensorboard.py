"""`TensorBoard`: Keras's callback, and all components of a composite in one chart."""

import os
import textwrap

from combined_losses._backend import keras_private
from combined_losses._core.keras_types import KerasTensorBoard
from combined_losses._core.names import log_key, weight_key
from combined_losses.training import routing
from combined_losses.training.keeping import tracking_of

__all__ = ["TensorBoard"]


class TensorBoard(KerasTensorBoard):
    """`keras.callbacks.TensorBoard`, with all components of a composite in one chart.

    What Keras's callback writes stays as it is: in the tab *Time Series* each component has a chart
    `epoch_<name>_loss`. Besides, TensorBoard has a tab *Custom Scalars*; click on it. Without any
    setting it shows for each composite

    - one chart of all its components, training and validation in the colours of their runs,
    - one of the parts of each nested composite,
    - one of the weights, where they change.

    The title of a chart says what is in it; *Matches* below it is the legend. The composites of
    several outputs are told apart by the name of the output: `composite_loss (a)`.

    Args:
        log_dir: the folder to write to; `tensorboard --logdir logs` shows it.
        **kwargs: the other arguments of `keras.callbacks.TensorBoard`, also by position.

    Raises:
        ImportError: where TensorFlow is not installed, as Keras's callback, on each backend.

    Example:

    >>> import os
    >>> import tempfile
    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> model = cl.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> x, y = np.ones((4, 1)), np.ones((4, 1))
    >>> with tempfile.TemporaryDirectory() as logs:
    ...     board = cl.callbacks.TensorBoard(logs)
    ...     history = model.fit(x, y, epochs=3, verbose=0, callbacks=[board])
    ...     print(os.path.exists(f"{logs}/train/events.out.tfevents.0.composites"))
    True
    """

    def __init__(self, log_dir="logs", *args, **kwargs):
        super().__init__(log_dir, *args, **kwargs)
        self._layout = b""

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self._layout = b""
        self._lay_out(logs or {})

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        # Again: a subclassed model learns its outputs in a batch, and a weight may begin to change.
        self._lay_out(logs or {})

    def _lay_out(self, logs):
        """Writes the charts of the tab Custom Scalars where they are new."""
        from tensorboard.plugins.custom_scalar import layout_pb2

        layout = layout_pb2.Layout()
        for composite, charts in _composites(self.model, logs).items():
            category = layout.category.add(title=composite)
            for title, keys in charts.items():
                tag = keras_private.epoch_tags(keys)
                category.chart.add(title=title, multiline={"tag": [tag]})
        content = layout.SerializeToString(deterministic=True)
        if content != self._layout:
            self._layout = content
            keras_private.write_layout(os.path.join(self.log_dir, "train"), content)


def _composites(model, logs):
    """The title of each composite -> title of each chart -> log keys in it."""
    tracking = tracking_of(model)
    if tracking is None:  # a plain model reports components where it has `as_metrics`
        pairs = [("", loss) for loss in routing.compounds(model.loss)]
        known = logs
    else:
        pairs = [(route.output, route.loss) for route in tracking.routes]
        known = {*tracking.keys, *tracking.weights(), *logs}
    composites = {}
    for output, loss in pairs:
        names = getattr(loss, "component_names", ())
        charts = _charts(names, f"{output}_" if output else "", known)
        if charts:
            composites[f"{loss.name} ({output})" if output else loss.name] = charts
    return composites


def _charts(names, prefix, known):
    """The title of each chart of a composite -> those log keys in it that are `known`."""
    groups = {"components": {}}
    for name in names:
        outer, _, part = name.rpartition("/")
        groups.setdefault(outer or "components", {})[part] = log_key(prefix + name)
    groups["weights"] = {name: weight_key(prefix + name) for name in names}
    charts = {}
    for group, keys in groups.items():
        keys = {name: key for name, key in keys.items() if key in known}
        title = textwrap.shorten(f"{group}: {', '.join(keys)}", width=50, placeholder=" …")
        if keys:
            charts[title] = list(keys.values())
    return charts
