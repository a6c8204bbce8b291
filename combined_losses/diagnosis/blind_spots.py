"""What a diagnosis cannot show: gradients that pass the output by, or do not meet there."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from combined_losses._core.names import listed
from combined_losses.diagnosis.evidence import Evidence
from combined_losses.diagnosis.summary import Summary

HEADLINE = 'cannot be seen at the output; look again with at="parameters"'


class BlindSpot(NamedTuple):
    """Components of which something cannot be seen.

    Attributes:
        names: the names of these components, in order.
        message: what cannot be seen, and why.
        hides_lengths: whether the lengths of their gradients cannot be compared.
    """

    names: tuple[str, ...]
    message: str
    hides_lengths: bool = False


def find_blind_spots(summary: Summary, evidence: Evidence) -> list[BlindSpot]:
    """The blind spots, from a `Summary` and the `Evidence` behind it.

    Gradients at the parameters have none: they contain all ways from a component to the network.
    """
    if summary.at != "output":
        return []
    beyond = tuple(summary.names[i] for i in np.flatnonzero(summary.beyond))
    whose = "its gradient is" if len(beyond) == 1 else "their gradients are"
    spots = [BlindSpot(beyond, f"{whose} {_BEYOND}")] if beyond else []
    return [*spots, *_apart(summary, evidence.have_common_places)]


_BEYOND = (
    "seen at the parameters only: not all of it goes through the predictions (but through a layer, "
    "a variable, derivatives)."
)


def _apart(summary: Summary, common: np.ndarray) -> Iterator[BlindSpot]:
    """Parts with the same parent that act on places of the output which have nothing in common."""
    norms = summary.gradient_norms
    families: dict[str | None, list[int]] = {}  # by the name of the parent
    for index, part in enumerate(summary.parts):
        if norms[index] > 0:
            families.setdefault(part.parent, []).append(index)
    for family in families.values():
        groups = _groups(family, common)
        if len(groups) > 1:
            shown = " | ".join(", ".join(summary.names[i] for i in group) for group in groups)
            names = tuple(summary.names[i] for i in sorted(np.concatenate(groups)))
            message = (
                f"these read no entry of the predictions in common ({shown}), so that a conflict "
                "between them, in the layers that they share, does not show."
            )
            rows = [str(int(n)) for n in dict.fromkeys(summary.rows[family])]
            if len(rows) > 1:
                message += (
                    " Nor can the lengths of their gradients be compared: these are gradients of "
                    f"means over {listed(rows)} rows."
                )
            yield BlindSpot(names, message, len(rows) > 1)


def _groups(family: list[int], common: np.ndarray) -> list[list[int]]:
    """The parts that are connected by places of the output that they have in common."""
    groups: list[list[int]] = []
    others = list(family)
    while others:
        group, added = [], [others[0]]
        while added:
            group += added
            others = [i for i in others if i not in added]
            added = [i for i in others if common[i, group].any()]
        groups.append(sorted(group))
    return groups
