"""`Diagnosis`: what `diagnose` found, as a table, a data frame, a figure, a page."""

import io
import math
from dataclasses import asdict, dataclass

from combined_losses.reporting.faults import ADVICE
from combined_losses.reporting.unseen import HEADLINE


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

    def __init__(self, model_name, summary, faults, unseen=()):
        self.model_name = model_name
        self._unseen = list(unseen)
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
        hidden = {name for found in self._unseen for name in found.names}
        return [name for name in self.names if name in hidden]

    @property
    def flags(self):
        """What is wrong: a dict from the name of a component to a tuple of flags, without the
        healthy ones."""
        return {name: found.flags for name, found in self.components.items() if found.flags}

    def __getitem__(self, name):
        if name not in self.components:
            known = ", ".join(map(repr, self.names))
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
        from combined_losses.reporting.plots.diagnosis import overview

        return overview(self)

    def to_html(self):
        """A self-contained page with the table, what is wrong, and the figure; needs matplotlib."""
        from combined_losses.reporting.page import page

        return page(self)

    def _repr_html_(self):
        from combined_losses.reporting.page import fragment

        return fragment(self)

    def __repr__(self):
        found = ", ".join(f"{name}: {'; '.join(flags)}" for name, flags in self.flags.items())
        hidden = f"cannot see all of {', '.join(self.invisible)}" if self.invisible else ""
        said = "; ".join(filter(None, [found, hidden])) or "nothing is wrong"
        return f"<Diagnosis of '{self.model_name}': {said}>"

    def __str__(self):
        return text(self)


# The table, for the terminal and the page.

COLUMNS = (
    "component",
    "value",
    "weight",
    "of loss",
    "gradient",
    "of gradient",
    "min cos",
    "mean cos",
)


def cells(diagnosis):
    """The rows of the table, as strings: one for each of `COLUMNS`, and the flags."""
    for name, found in diagnosis.components.items():
        depth = diagnosis._depths[name]
        yield (
            "  " * depth + name,
            f"{found.value:.4g}",
            number(found.weight),
            percent(found.share),
            number(found.gradient_norm),
            percent(found.gradient_share),
            cosine(found.min_cosine),
            cosine(found.mean_cosine),
            ", ".join(found.flags),
        )


def number(value):
    """Four digits; a dash for what is unknown."""
    return "–" if math.isnan(value) else f"{value:.4g}"


def percent(share):
    """A share as a percentage; what is not quite 0 or 100 does not look so."""
    if math.isnan(share):
        return "–"
    text = f"{100 * share:.1f} %"
    if share > 0 and text == "0.0 %":
        return "<0.1 %"
    return ">99.9 %" if share < 1 and text == "100.0 %" else text


def cosine(value):
    return "–" if math.isnan(value) else f"{value:+.2f}"


def summary_line(diagnosis):
    """What was looked at, in one line."""
    where = "at the output" if diagnosis.at == "output" else "at the parameters"
    batches = "1 batch" if diagnosis.batches == 1 else f"{diagnosis.batches} batches"
    samples = "1 sample" if diagnosis.samples == 1 else f"{diagnosis.samples} samples"
    return f"loss {diagnosis.loss:.4g} on {samples} in {batches}, gradients {where}"


def proposal(diagnosis):
    """The proposed weights as code, or None where nothing would change."""
    weights = diagnosis.proposed_weights
    now = {name: diagnosis[name].weight for name in weights}
    same = all(math.isclose(weights[name], now[name], rel_tol=0.01) for name in weights)
    if same or len(weights) < 2:
        return None
    return "{" + ", ".join(f"{name!r}: {weight:g}" for name, weight in weights.items()) + "}"


def by_flag(diagnosis):
    """The faults, a list for each flag."""
    found = {}
    for fault in diagnosis.faults:
        found.setdefault(fault.flag, []).append(fault)
    return found


def unseen_lines(diagnosis):
    """`(names, message)` of what cannot be seen."""
    return [(", ".join(found.names), found.message) for found in diagnosis._unseen]


def all_is_well(diagnosis):
    """The sentence that says so; None where it would not be true."""
    if diagnosis.faults:
        return None
    return "No fault is seen." if diagnosis.invisible else "Nothing is wrong."


# For terminals that cannot show them.
_PLAIN = str.maketrans({"–": "-", "…": "."})


def text(diagnosis, width=100, plain=False):
    """The table and what is wrong, for a terminal; `plain`: in ASCII, but for names."""
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.padding import Padding
    from rich.table import Table

    table = Table(
        title=f"{escape(diagnosis.model_name)}: {summary_line(diagnosis)}",
        title_justify="left",
        box=box.ASCII if plain else box.HEAVY_HEAD,
    )
    for column in COLUMNS:
        left = column == "component"
        table.add_column(
            column, justify="left" if left else "right", no_wrap=not left, overflow="fold"
        )
    for *row, _ in cells(diagnosis):
        table.add_row(*map(escape, row))
    stream = io.StringIO()
    console = Console(file=stream, width=width, highlight=False)
    console.print(table)
    for flag, faults in by_flag(diagnosis).items():
        console.print(f"\n{flag}: {escape(ADVICE[flag])}")
        for fault in faults:
            console.print(
                Padding(f"{escape(fault.component)}: {escape(fault.message)}", (0, 0, 0, 2))
            )
    if diagnosis.invisible:
        console.print(f"\n{escape(HEADLINE)}:")
        for names, message in unseen_lines(diagnosis):
            console.print(Padding(escape(f"{names}: {message}"), (0, 0, 0, 2)))
    if all_is_well(diagnosis) is not None:
        console.print(f"\n{all_is_well(diagnosis)}")
    weights = proposal(diagnosis)
    if weights is not None:
        console.print(f"\nGradients equally long: weights={escape(weights)}")
    shown = stream.getvalue().rstrip()
    return shown.translate(_PLAIN) if plain else shown
