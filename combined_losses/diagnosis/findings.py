"""What `diagnose` found, as numbers and messages; `Diagnosis` shows it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from combined_losses._core.names import quoted
from combined_losses.diagnosis.blind_spots import BlindSpot
from combined_losses.diagnosis.faults import Fault
from combined_losses.diagnosis.measurer import At
from combined_losses.diagnosis.summary import Summary


@dataclass(frozen=True)
class ComponentDiagnosis:
    """What `cl.diagnose` found of one component.

    Attributes:
        value: its value, unweighted, as in the logs of `evaluate`.
        rows: over how many rows of the data its value is a mean.
        weight: the weight that multiplies it; NaN where a wrapper weighs by itself.
        share: `|weight * value|`, divided by the sum of these over all components; in [0, 1].
        gradient_norm: the length of its gradient, unweighted; NaN where none can be seen.
        gradient_share: `|weight| * gradient_norm`, divided by the sum of these; in [0, 1].
        min_cosine, mean_cosine: the smallest and the mean cosine between its weighted gradient and
            those of the others; NaN where there is none.
        proposed_weight: the weight with which the gradients of all components were equally long;
            NaN for a part of a component.
        flags: what is wrong, each in a word or two.
    """

    value: float
    rows: int
    weight: float
    share: float
    gradient_norm: float
    gradient_share: float
    min_cosine: float
    mean_cosine: float
    proposed_weight: float
    flags: tuple[str, ...]


class Findings:
    """The numbers and messages of a `Diagnosis`, which documents the attributes (abstract)."""

    def __init__(
        self,
        model_name: str,
        summary: Summary,
        faults: Sequence[Fault],
        blind_spots: Sequence[BlindSpot] = (),
    ) -> None:
        self.model_name = model_name
        self._blind_spots = list(blind_spots)
        self.names: tuple[str, ...] = tuple(summary.names)
        self.faults: list[Fault] = list(faults)
        self._depths = {name: summary.depth(index) for index, name in enumerate(self.names)}
        self.cosines: np.ndarray = summary.cosines
        self.loss: float = summary.total
        self.samples: int = summary.samples
        self.batches: int = summary.batches
        self.at: At = summary.at
        self._has_own_rows = summary.has_own_rows
        self.proposed_weights: dict[str, float] = summary.proposed_weights()
        self.components: dict[str, ComponentDiagnosis] = {
            name: self._component(name, index, summary) for index, name in enumerate(self.names)
        }

    def _component(self, name: str, index: int, summary: Summary) -> ComponentDiagnosis:
        least, mean = summary.cosine_to_others(index)
        flags = [fault.flag for fault in self.faults if fault.component == name]
        return ComponentDiagnosis(
            value=float(summary.values[index]),
            rows=int(summary.rows[index]),
            weight=float(summary.weights[index]),
            share=float(summary.shares[index]),
            gradient_norm=float(summary.gradient_norms[index]),
            gradient_share=float(summary.gradient_shares[index]),
            min_cosine=least,
            mean_cosine=mean,
            proposed_weight=self.proposed_weights.get(name, math.nan),
            flags=tuple(dict.fromkeys(flags)),
        )

    @property
    def invisible(self) -> list[str]:
        """The names of components of which something cannot be seen here, in order."""
        invisible = {name for spot in self._blind_spots for name in spot.names}
        return [name for name in self.names if name in invisible]

    @property
    def flags(self) -> dict[str, tuple[str, ...]]:
        """A dict with the flags of each component that has any, by its name."""
        return {name: found.flags for name, found in self.components.items() if found.flags}

    def __getitem__(self, name: str) -> ComponentDiagnosis:
        if name not in self.components:
            raise KeyError(f"The components are {quoted(self.names)}. Received: {name!r}")
        return self.components[name]

    def __iter__(self) -> Iterator[ComponentDiagnosis]:
        return iter(self.components.values())

    def __len__(self) -> int:
        return len(self.components)
