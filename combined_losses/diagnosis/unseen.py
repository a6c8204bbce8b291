"""What a diagnosis cannot show: gradients that pass the output by, or do not meet there."""

from typing import NamedTuple

import numpy as np

HEADLINE = 'cannot be seen at the output; look again with at="parameters"'


class Unseen(NamedTuple):
    """Components of which something cannot be seen.

    Attributes:
        names: theirs, in order.
        message: what cannot be seen, and why.
    """

    names: tuple[str, ...]
    message: str


def unseen(summary, evidence):
    """A list of `Unseen`, from a `Summary` and the `Evidence` behind it; empty at the parameters.

    The gradients at the parameters hold all ways from a component to the network.
    """
    if summary.at != "output":
        return []
    beyond = [name for name, found in zip(summary.names, summary.beyond, strict=True) if found]
    found = [Unseen(tuple(beyond), _BEYOND)] if beyond else []
    return [*found, *_apart(summary, evidence.meeting)]


_BEYOND = "the model is acted on by more than its predictions (a layer, a variable, derivatives)."


def _apart(summary, meeting):
    """Parts with the same parent, of which some have no place of the output in common."""
    norms = summary.gradient_norms
    families = {}
    for index, part in enumerate(summary.parts):
        if norms[index] > 0:
            families.setdefault(part.parent, []).append(index)
    for family in families.values():
        groups = _groups(family, meeting)
        if len(groups) > 1:
            shown = " | ".join(", ".join(summary.names[i] for i in group) for group in groups)
            names = tuple(summary.names[i] for i in sorted(np.concatenate(groups)))
            yield Unseen(
                names,
                f"these read nothing in common ({shown}), so that a conflict between them, in the "
                "layers that they share, does not show.",
            )


def _groups(family, meeting):
    """The parts that are connected by places that they have in common."""
    groups, left = [], list(family)
    while left:
        group, new = [], [left[0]]
        while new:
            group += new
            left = [i for i in left if i not in new]
            new = [i for i in left if meeting[i, group].any()]
        groups.append(sorted(group))
    return groups
