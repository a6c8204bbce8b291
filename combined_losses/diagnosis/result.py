"""`Diagnosis`: what `diagnose` found, as a table, a data frame, a figure, a page."""

import math
from dataclasses import asdict, dataclass

from combined_losses._core.names import quoted
from combined_losses.diagnosis.page import fragment, page
from combined_losses.diagnosis.terminal import text
from combined_losses.plots.diagnosis import overview


@dataclass(frozen=True)
class ComponentDiagnosis:
    """One component.

    Attributes:
        value: unweighted, as in the logs of `evaluate`.
        weight: what multiplies it; NaN where a wrapper weighs by itself.
        share: `|weight * value|`, of the sum of these, in [0, 1].
        gradient_norm: the length of its gradient, unweighted; NaN where there is none to be seen.
        gradient_share: `|weight| * gradient_norm`, of the sum of these, in [0, 1].
        min_cosine, mean_cosine: between its weighted gradient and those of the others.
        proposed_weight: that with which all gradients were equally long; NaN for parts of a part.
        flags: what is wrong, each in a word or two.
    """

    value: float
    weight: float
    share: float
    gradient_norm: float
    gradient_share: float
    min_cosine: float
    mean_cosine: float
    proposed_weight: float
    flags: tuple[str, ...]


class Diagnosis:
    """What `cl.diagnose` found.

    Shares and cosines of the parts of a nested composite are among these parts. `print` shows a
    table, a notebook too.

    Attributes:
        components: a dict from name to `ComponentDiagnosis`; `diagnosis["mse"]` for short.
        faults: a list of all that is wrong: `component`, `flag`, `message`.
        names: the names of the components, a tuple of k.
        cosines: `(k, k)`, between their weighted gradients; NaN where there is none.
        loss: the total, as in `evaluate`.
        samples, batches: how many were looked at.
        at: where gradients were taken, `"output"` or `"parameters"`.
        invisible: the names of components of which something cannot be seen at the output: their
            gradients pass it by, or meet those of others in the layers before it only. `print`
            says which; `at="parameters"` shows them.
        model_name: that of the model.

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

    def __init__(self, model_name, summary, faults, blind_spots=()):
        self.model_name = model_name
        self._blind_spots = list(blind_spots)
        self.names = tuple(summary.names)
        self.faults = list(faults)
        self._depths = {name: summary.depth(index) for index, name in enumerate(self.names)}
        self.cosines = summary.cosines
        self.loss = summary.total
        self.samples, self.batches, self.at = summary.samples, summary.batches, summary.at
        self.proposed_weights = summary.proposed_weights()
        self.components = {
            name: self._component(name, index, summary) for index, name in enumerate(self.names)
        }

    def _component(self, name, index, summary):
        least, mean = summary.cosine_to_others(index)
        flags = [fault.flag for fault in self.faults if fault.component == name]
        return ComponentDiagnosis(
            value=float(summary.values[index]),
            weight=float(summary.weights[index]),
            share=float(summary.shares[index]),
            gradient_norm=float(summary.gradient_norms[index]),
            gradient_share=float(summary.gradient_shares[index]),
            min_cosine=float(least),
            mean_cosine=float(mean),
            proposed_weight=self.proposed_weights.get(name, math.nan),
            flags=tuple(dict.fromkeys(flags)),
        )

    @property
    def invisible(self):
        """The names of components of which something cannot be seen here, in order."""
        invisible = {name for spot in self._blind_spots for name in spot.names}
        return [name for name in self.names if name in invisible]

    @property
    def flags(self):
        """What is wrong: a dict from the name of a component to a tuple of flags, without the
        healthy ones."""
        return {name: found.flags for name, found in self.components.items() if found.flags}

    def __getitem__(self, name):
        if name not in self.components:
            known = quoted(self.names)
            raise KeyError(f"The components are {known}. Received: {name!r}")
        return self.components[name]

    def to_frame(self):
        """A `pandas.DataFrame` with a row for each component; needs pandas.

        Its columns are the attributes of `ComponentDiagnosis`; `flags` holds one string.
        """
        import pandas as pd

        rows = [{**asdict(found), "flags": ", ".join(found.flags)} for found in self]
        return pd.DataFrame(rows, index=pd.Index(self.names, name="component"))

    def __iter__(self):
        return iter(self.components.values())

    def __len__(self):
        return len(self.components)

    def plot(self):
        """A matplotlib `Figure`: shares of loss and gradient, and the cosines; needs matplotlib."""
        return overview(self)

    def to_html(self):
        """A self-contained page with the table, what is wrong, and the figure; needs matplotlib."""
        return page(self)

    def _repr_html_(self):
        return fragment(self)

    def __repr__(self):
        wrong = ", ".join(f"{name}: {'; '.join(flags)}" for name, flags in self.flags.items())
        hidden = f"cannot see all of {', '.join(self.invisible)}" if self.invisible else ""
        findings = "; ".join(filter(None, [wrong, hidden])) or "nothing is wrong"
        return f"<Diagnosis of '{self.model_name}': {findings}>"

    def __str__(self):
        return text(self)
