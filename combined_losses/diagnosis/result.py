"""`Diagnosis`: what `diagnose` found, as a table, a data frame, a figure, a page."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from combined_losses.diagnosis.findings import Findings
from combined_losses.diagnosis.page import fragment, page
from combined_losses.diagnosis.terminal import text
from combined_losses.plots.diagnosis import overview

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame


class Diagnosis(Findings):
    """What `cl.diagnose` found.

    Shares and cosines of the parts of a nested composite are among these parts. `print` shows a
    table, a notebook too.

    Attributes:
        components: a dict from name to `ComponentDiagnosis`; `diagnosis["mse"]` for short.
        faults: a list of all that is wrong: `component`, `flag`, `message`.
        names: the names of the components, a tuple of k.
        cosines: `(k, k)`, between their weighted gradients; NaN where there is none.
        loss: the total, as in `evaluate`.
        samples, batches: how many were looked at. As in Keras, the samples are the rows of the
            first input; the `rows` of each component are its own.
        at: where gradients were taken, `"output"` or `"parameters"`.
        proposed_weights: a dict from name to the weight with which the gradients of all components
            were equally long, where they were taken; the current weight of a component whose
            gradient is not seen there.
        invisible: the names of components of which something cannot be seen at the output: their
            gradients do not go through it, or meet those of others only in the layers before it.
            `print` says which; `at="parameters"` shows them.
        model_name: the name of the model.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> x, y = np.ones((4, 1)), np.full((4, 1), 2.0)
    >>> dense = keras.layers.Dense(1, kernel_initializer="zeros")
    >>> model = cl.Sequential([keras.Input((1,)), dense])
    >>> model.compile("adam", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> diagnosis = cl.diagnose(model, x, y)
    >>> diagnosis["mse"].value, diagnosis["mse"].gradient_norm
    (4.0, 2.0)
    >>> diagnosis.proposed_weights  # the gradient of mae has a quarter of the length
    {'mse': 1.0, 'mae': 4.0}
    """

    def to_frame(self) -> "DataFrame":
        """A `pandas.DataFrame` with a row for each component; needs pandas.

        Its columns are the attributes of `ComponentDiagnosis`; `flags` holds one string.
        """
        import pandas as pd

        rows = [{**asdict(found), "flags": ", ".join(found.flags)} for found in self]
        return pd.DataFrame(rows, index=pd.Index(self.names, name="component"))

    def plot(self) -> "Figure":
        """A matplotlib `Figure`: shares of loss and gradient, and the cosines; needs matplotlib."""
        return overview(self)

    def to_html(self) -> str:
        """A self-contained page with the table, what is wrong, and the figure; needs matplotlib."""
        return page(self)

    def _repr_html_(self) -> str:
        return fragment(self)

    def __repr__(self) -> str:
        wrong = ", ".join(f"{name}: {'; '.join(flags)}" for name, flags in self.flags.items())
        hidden = f"cannot see all of {', '.join(self.invisible)}" if self.invisible else ""
        findings = "; ".join(filter(None, [wrong, hidden])) or "nothing is wrong"
        return f"<Diagnosis of '{self.model_name}': {findings}>"

    def __str__(self) -> str:
        return text(self)
