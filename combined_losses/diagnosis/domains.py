"""Targets and predictions outside of what a loss means, such as masks of 0 and 255."""

from collections.abc import Iterator
from typing import TypeAlias

from combined_losses._core.domains import RANGES, Domain
from combined_losses.diagnosis.evidence import Evidence
from combined_losses.diagnosis.parts import Part
from combined_losses.diagnosis.summary import Summary

Finding: TypeAlias = tuple[str, str]
"""A flag, which is a key of `ADVICE`, and a message."""

ADVICE = {
    "targets out of range": (
        "divide masks of 0 and 255 by 255, images by their largest value or set `max_value`; give "
        "ids below the number of classes, and mark void ones (`ignore_class`, cl.wrappers.OneHot)."
    ),
    "predictions out of range": (
        "the loss means probabilities: set from_logits=True, or end the network in a sigmoid or "
        "softmax."
    ),
    "part of a softmax": (
        "a softmax over some of the channels is not that over all of them, unless they are a head "
        "of their own; put cl.wrappers.Activated(loss, 'softmax') around OnSlice, with "
        "from_logits=False."
    ),
}

# The rounding of float16 in a sum of 1, and in a 0 or 1 that was computed.
_ROUGHLY = 2e-3
# Images whose range differs from `max_value` by this factor are given in another range, such as 255
# for 1; they are not dark photographs.
_FAR = 20.0

_MEANING = {
    "shares": "masks or labels from 0 to 1",
    "classes": "one-hot rows, or probabilities of the classes",
    "signs": "labels of -1 and 1, or of 0 and 1",
    "amounts": "numbers of at least 0",
}


def out_of_domain(
    index: int, part: Part, evidence: Evidence, summary: Summary
) -> Iterator[Finding]:
    """What a component was given that its losses do not mean."""
    is_constant = evidence.without_gradient[index] and not evidence.reacts[index]
    if is_constant and evidence.always_zero[index]:
        return  # its value is 0 whatever it is given
    domains = evidence.domains.get(part.name, [])
    findings: list[Finding] = []
    for (domain, classes), facts in zip(domains, evidence.facts_of(part.name), strict=False):
        findings += _targets(domain, classes, *facts[:4])
        if not is_constant:  # else its value is the same whatever is predicted
            findings += _predictions(domain, *facts[4:])
    findings += evidence.notes.get(part.name, [])
    yield from dict.fromkeys(findings)


def _targets(
    domain: Domain, classes: int | None, low: float, high: float, fraction: float, missing: float
) -> Iterator[Finding]:
    """Targets outside of a domain; the numbers are the first four of `Facts.numbers`."""
    if domain.targets is None or (high < low and not missing):
        return
    flag, span = "targets out of range", f"the targets go from {low:g} to {high:g}"
    if domain.targets in RANGES:
        least, most = RANGES[domain.targets]
        if low < least - _ROUGHLY or high > most + _ROUGHLY:
            yield flag, f"{span}, and the loss means {_MEANING[domain.targets]}."
    elif domain.targets == "images":
        size = high - low
        meant = domain.max_value
        if meant is not None and (size > _FAR * meant or 0 < _FAR * size < meant):
            yield flag, f"{span}, and `max_value`, the range of the images, is {meant:g}."
    else:
        what = "class ids" if domain.targets == "ids" else "labels (whole numbers)"
        if missing:
            yield flag, f"some targets are NaN or infinite, and the loss means {what}."
        if fraction:
            yield flag, f"some targets are fractions, and the loss means {what}."
        if classes is not None and (low < 0 or high >= classes):
            yield flag, f"{span}, and there are {classes} classes, 0 to {classes - 1}."


def _predictions(domain: Domain, low: float, high: float) -> Iterator[Finding]:
    """Predictions outside of a domain; the numbers are the last two of `Facts.numbers`."""
    if domain.predictions == "probabilities" and (low < -_ROUGHLY or high > 1 + _ROUGHLY):
        span = f"the predictions go from {low:.4g} to {high:.4g}"
        yield "predictions out of range", f"{span}, and the loss means probabilities."
