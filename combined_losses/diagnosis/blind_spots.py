"""What a diagnosis cannot show: gradients that pass the output by, or share no place of it."""

from typing import NamedTuple

import numpy as np

HEADLINE = 'cannot be seen at the output; look again with at="parameters"'


class BlindSpot(NamedTuple):
    """Components of which something cannot be seen.

    Attributes:
        names: theirs, in order.
        message: what cannot be seen, and why.
    """

    names: tuple[str, ...]
    message: str


def find_blind_spots(summary, evidence):
    """A list of `BlindSpot`, from a `Summary` and the `Evidence` behind it.

    At the parameters there is none: those gradients hold all ways from a component to the network.
    """
    if summary.at != "output":
        return []
    beyond = tuple(summary.names[i] for i in np.flatnonzero(summary.beyond))
    spots = [BlindSpot(beyond, _BEYOND)] if beyond else []
    return [*spots, *_apart(summary, evidence.have_common_places)]


_BEYOND = "the model is acted on by more than its predictions (a layer, a variable, derivatives)."


def _apart(summary, common):
    """Parts with the same parent, of which some have no place of the output in common."""
    norms = summary.gradient_norms
    families = {}
    for index, part in enumerate(summary.parts):
        if norms[index] > 0:
            families.setdefault(part.parent, []).append(index)
    for family in families.values():
        groups = _groups(family, common)
        if len(groups) > 1:
            shown = " | ".join(", ".join(summary.names[i] for i in group) for group in groups)
            names = tuple(summary.names[i] for i in sorted(np.concatenate(groups)))
            yield BlindSpot(
                names,
                f"these read nothing in common ({shown}), so that a conflict between them, in the "
                "layers that they share, does not show.",
            )


def _groups(family, common):
    """The parts that are connected by places that they have in common."""
    groups, others = [], list(family)
    while others:
        group, added = [], [others[0]]
        while added:
            group += added
            others = [i for i in others if i not in added]
            added = [i for i in others if common[i, group].any()]
        groups.append(sorted(group))
    return groups
