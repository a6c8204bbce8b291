"""Targets and predictions that are not what a loss means."""

from combined_losses._core.domains import RANGES

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
        "a softmax over a part of the channels is another one, unless that part is a head of its "
        "own; put cl.wrappers.Activated(loss, 'softmax') around OnSlice, with from_logits=False."
    ),
}

# What float16 makes of a sum of 1; and of 0 and 1 that were computed.
_ROUGHLY = 2e-3
# Images in a range other than that of `max_value`: 0 ... 255 beside 1, never a dark photograph.
_FAR = 20.0

_MEANING = {
    "shares": "masks or labels from 0 to 1",
    "classes": "one-hot rows, or probabilities of the classes",
    "signs": "labels of -1 and 1, or of 0 and 1",
    "amounts": "numbers of at least 0",
}


def out_of_domain(index, part, evidence, summary):
    """`(flag, message)` of what a component was given that its losses do not mean."""
    if evidence.without_gradient[index] and not evidence.reacts[index]:
        return  # whatever it is given, it makes nothing of it
    domains = evidence.domains.get(part.name, [])
    pairs = []
    for (domain, classes), facts in zip(domains, evidence.facts_of(part.name), strict=False):
        pairs += _targets(domain, classes, *facts[:4])
        pairs += _predictions(domain, *facts[4:])
    pairs += evidence.notes.get(part.name, [])
    yield from dict.fromkeys(pairs)


def _targets(domain, classes, low, high, fraction, missing):
    if domain.targets is None or (high < low and not missing):
        return
    flag, span = "targets out of range", f"the targets go from {low:g} to {high:g}"
    if domain.targets in RANGES:
        least, most = RANGES[domain.targets]
        if low < least - _ROUGHLY or high > most + _ROUGHLY:
            yield flag, f"{span}, and the loss means {_MEANING[domain.targets]}."
    elif domain.targets == "images":
        size = high - low
        if size > _FAR * domain.max_value or 0 < _FAR * size < domain.max_value:
            yield (
                flag,
                f"{span}, and `max_value`, the range of the images, is {domain.max_value:g}.",
            )
    else:
        what = "class ids" if domain.targets == "ids" else "labels, whole numbers"
        if missing:
            yield flag, f"there are NaN or infinite ones among the targets, which are {what}."
        if fraction:
            yield flag, f"there are fractions among the targets, which are {what}."
        if classes is not None and (low < 0 or high >= classes):
            yield flag, f"{span}, and there are {classes} classes, 0 to {classes - 1}."


def _predictions(domain, low, high):
    if domain.predictions == "probabilities" and (low < -_ROUGHLY or high > 1 + _ROUGHLY):
        span = f"the predictions go from {low:.4g} to {high:.4g}"
        yield "predictions out of range", f"{span}, and the loss means probabilities."
