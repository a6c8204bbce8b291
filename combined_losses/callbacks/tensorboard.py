"""`TensorBoard`: Keras's callback, and all components of a composite in one chart."""

import os
import textwrap
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from combined_losses._backend import keras_private
from combined_losses._core.keras_types import KerasTensorBoard, Logs
from combined_losses._core.names import log_key, weight_key
from combined_losses._core.node import Node
from combined_losses.training import routing
from combined_losses.training.model_state import tracking_of

__all__ = ["TensorBoard"]


Charts: TypeAlias = dict[str, list[str]]  # the title of each chart -> log keys in it


class TensorBoard(KerasTensorBoard):
    """`keras.callbacks.TensorBoard`, with all components of a composite in one chart.

    What Keras's callback writes stays as it is: in the tab *Time Series* each component has a chart
    `epoch_<name>_loss`. In addition, the tab *Custom Scalars* of TensorBoard shows for each
    composite, without any setting,

    - one chart of all its components, training and validation in the colours of their runs,
    - one chart of the parts of each nested composite,
    - one chart of the weights that change.

    The title of a chart says what is in it; *Matches* below it is the legend. If the model has
    several outputs, the name of the output is added: `composite_loss (a)`.

    Args:
        log_dir: the folder to write to; `tensorboard --logdir logs` shows it.
        *args: the other arguments of `keras.callbacks.TensorBoard`.
        **kwargs: the same, by name.

    Raises:
        ImportError: if TensorFlow is not installed. Keras's callback needs it on every backend.

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

    def __init__(self, log_dir: str = "logs", *args: Any, **kwargs: Any) -> None:
        super().__init__(log_dir, *args, **kwargs)
        self._written_layout = b""

    def on_train_begin(self, logs: Logs = None) -> None:
        super().on_train_begin(logs)
        self._written_layout = b""
        self._write_layout(logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        super().on_epoch_end(epoch, logs)
        # There may be more charts now: a subclassed model knows its outputs after its first batch,
        # and a weight may have begun to change.
        self._write_layout(logs or {})

    def _write_layout(self, logs: Mapping[str, Any]) -> None:
        """Writes which charts the tab Custom Scalars has, unless that is written already."""
        from tensorboard.plugins.custom_scalar import layout_pb2

        layout = layout_pb2.Layout()
        for composite, charts in _charts_by_composite(self.model, logs).items():
            category = layout.category.add(title=composite)
            for title, keys in charts.items():
                tag = keras_private.epoch_tags(keys)
                category.chart.add(title=title, multiline={"tag": [tag]})
        content = layout.SerializeToString(deterministic=True)
        if content != self._written_layout:
            self._written_layout = content
            keras_private.write_layout(os.path.join(self.log_dir, "train"), content)


def _charts_by_composite(model: Any, logs: Mapping[str, Any]) -> dict[str, Charts]:
    """The title of each composite -> its charts."""
    tracking = tracking_of(model)
    pairs: list[tuple[str | None, Node]]
    if tracking is None:  # a plain model reports components if it was compiled with `as_metrics`
        pairs = [("", loss) for loss in routing.compounds(model.loss)]
        known = set(logs)
    else:
        pairs = [(route.output, route.loss) for route in tracking.routes]
        known = {*tracking.keys, *tracking.weights(), *logs}
    composites = {}
    for output, loss in pairs:
        charts = _charts(loss.component_names, f"{output}_" if output else "", known)
        if charts:
            composites[f"{loss.name} ({output})" if output else loss.name] = charts
    return composites


def _charts(names: Iterable[str], prefix: str, known: set[str]) -> Charts:
    """The charts of a composite.

    Args:
        names: the names of its components; `outer/inner` for parts of nested composites.
        prefix: what precedes a name in the log keys.
        known: the log keys that the model reports.
    """
    groups: dict[str, dict[str, str]] = {"components": {}}
    for name in names:
        outer, _, part = name.rpartition("/")
        groups.setdefault(outer or "components", {})[part] = log_key(prefix + name)
    groups["weights"] = {name: weight_key(prefix + name) for name in names}
    charts: Charts = {}
    for group, keys in groups.items():
        reported = {name: key for name, key in keys.items() if key in known}
        title = textwrap.shorten(f"{group}: {', '.join(reported)}", width=50, placeholder=" …")
        if reported:
            charts[title] = list(reported.values())
    return charts
