"""From what was measured of components to what is wrong with them."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from combined_losses._core.checks import Shape
from combined_losses._core.names import listed
from combined_losses._core.traits import Traits
from combined_losses.diagnosis import domains
from combined_losses.diagnosis.domains import Finding
from combined_losses.diagnosis.evidence import Evidence, may_broadcast
from combined_losses.diagnosis.parts import Part
from combined_losses.diagnosis.summary import Summary

DOMINATES = 0.95  # a share of the gradient above this
CONFLICTS = -0.5  # a cosine below this


# What is wrong, in one or two words, and what to do; in the order of the search.
ADVICE = {
    "not finite": "look at targets and predictions there, for a logarithm, root or quotient at 0.",
    "always zero": "it trains nothing; does it read the right channel, with the right arguments?",
    "constant": "it trains nothing; does it read the predictions at all?",
    "no gradient": (
        "it is detached (stop_gradient, NumPy), stepwise (round, argmax, comparisons) or saturated."
    ),
    "dominates": (
        "the others have no say; if that is not wanted, look at its unit (cl.wrappers.Scaled) and "
        "its weight."
    ),
    "conflicts": (
        "what one gains the other loses, as in every sum that has converged; before that, rules "
        "that read gradients find a compromise, such as cl.weightings.UPGrad."
    ),
    "ignores sample weights": "return one value for each sample, not a mean over the batch.",
    "ignores mask": "return one value for each masked element, such as a time step.",
    **domains.ADVICE,
    "shape unusual": "give one value for each sample or element, of targets shaped like y_pred.",
}


class Fault(NamedTuple):
    """One thing that is wrong with one component.

    Attributes:
        component: its name.
        flag: what it is, in one or two words: a key of `ADVICE`.
        message: what was found.
    """

    component: str
    flag: str
    message: str


def find_faults(summary: Summary, evidence: Evidence) -> list[Fault]:
    """The faults of all parts, in order, from a `Summary` and the `Evidence` behind it."""
    faults: list[Fault] = []
    for index, part in enumerate(summary.parts):
        if summary.weights[index] == 0:  # switched off: it has no gradient, on purpose
            continue
        for search in _SEARCHES:
            faults += [Fault(part.name, *pair) for pair in search(index, part, evidence, summary)]
    return faults


# Searches: functions of a part that yield what is wrong with it.


def _not_finite(index: int, part: Part, evidence: Evidence, summary: Summary) -> Iterator[Finding]:
    values = evidence.values
    others = any(not np.isfinite(values[i]) for i in summary.siblings(index))
    # The gradients of parts of one array are taken together, so that a part may have a gradient of
    # NaN because of another part: 0 * NaN is NaN.
    is_of_another = np.isfinite(values[index]) and not part.is_own and others
    if not evidence.not_finite[index] or is_of_another:
        return
    what = "value" if not np.isfinite(evidence.values[index]) else "gradient"
    message = f"its {what} is NaN or infinite"
    samples = evidence.faulty_samples(index)
    if samples is not None:
        shown = ", ".join(map(str, samples[:5])) + (", …" if len(samples) > 5 else "")
        what = "rows" if summary.has_own_rows else "samples"
        message += f" in {len(samples)} of {int(summary.rows[index])} {what} ({shown})"
        message += _classes(evidence.labels_of(index), samples)
    yield "not finite", f"{message}."


def _classes(labels: np.ndarray | None, samples: np.ndarray) -> str:
    """Says of which classes faulty samples are, where they are not of all classes."""
    if labels is None:
        return ""
    faulty, every = np.unique(labels[samples]), np.unique(labels)
    if len(faulty) == len(every) or len(faulty) > 5:
        return ""
    what = "class" if len(faulty) == 1 else "classes"
    return f", all of {what} {listed([str(label) for label in faulty])}"


def _without_gradient(
    index: int, part: Part, evidence: Evidence, summary: Summary
) -> Iterator[Finding]:
    if not evidence.without_gradient[index] or evidence.not_finite[index]:
        return
    if summary.beyond[index] or not summary.rows[index]:
        return
    zero, reacts = evidence.always_zero[index], evidence.reacts[index]
    if not reacts:
        value = "0" if zero else f"{evidence.values[index]:.4g}"
        message = f"it is {value}, whatever the predictions{_one_channel(part, evidence)}."
        yield "always zero" if zero else "constant", message
    elif not zero:
        yield "no gradient", "its value changes with the predictions, its gradient is 0 everywhere."


def _one_channel(part: Part, evidence: Evidence) -> str:
    """Says that a softmax over one channel is the reason why a part is constant, where it is."""
    given = evidence.observed.get(part.name)
    if given is None or given.traits == Traits() or given.traits.elementwise:
        return ""
    if given.y_pred is None or given.y_pred[-1:] != (1,):
        return ""
    return (
        ": there is one channel, and a softmax over one class is always 1; for a single yes-or-no "
        "output take the binary loss"
    )


def _dominates(index: int, part: Part, evidence: Evidence, summary: Summary) -> Iterator[Finding]:
    share, of_loss = summary.gradient_shares[index], summary.shares[index]
    with_gradient = [i for i in summary.siblings(index) if summary.gradient_shares[i] > 0]
    # At the output the share of the gradient alone says little: at a probability near 0 a
    # cross-entropy is steep, but the network is flat.
    least = share if summary.at == "parameters" else min(share, of_loss)
    if with_gradient and least > DOMINATES:
        message = f"it has {_percent(share)} of the gradient, {_percent(of_loss)} of the loss."
        yield "dominates", message


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %" if share < 0.9999 else "over 99.99 %"


def _conflicts(index: int, part: Part, evidence: Evidence, summary: Summary) -> Iterator[Finding]:
    cosines = {summary.names[i]: summary.cosines[index, i] for i in summary.siblings(index)}
    against = [f"'{name}' (cosine {c:.2f})" for name, c in cosines.items() if c < CONFLICTS]
    if against:
        yield "conflicts", f"it pulls against {listed(against)}."


def _ignores(index: int, part: Part, evidence: Evidence, summary: Summary) -> Iterator[Finding]:
    is_constant = evidence.without_gradient[index] and not evidence.reacts[index]
    if is_constant or part.is_beyond_output:
        return
    inside = [
        given for name, given in evidence.observed.items() if f"{name}/".startswith(f"{part.name}/")
    ]
    for what, other in (("sample weights", "other ones"), ("mask", "another one")):
        are_given = any(what in given.weights for given in inside)
        # A small part that reads them may be lost in the rounding of a large part that does not.
        parts = [i for i in summary.descendants(index) if evidence.values[i] != 0]
        if are_given and evidence.ignores(what)[[index, *parts]].all():
            yield f"ignores {what}", f"its value is the same with {other}."


def _shape(index: int, part: Part, evidence: Evidence, summary: Summary) -> Iterator[Finding]:
    given = evidence.observed.get(part.name)
    if given is None or given.traits != Traits() or given.y_pred is None:
        return
    pred, true, values = given.y_pred, given.y_true or given.y_pred, given.values
    if may_broadcast(given) and evidence.broadcasts is not None and evidence.broadcasts[index]:
        yield "shape unusual", f"y_true of shape {true} is broadcast against y_pred, {pred}."
    elif not (_is_within(values[1:], pred[1:]) or _is_within(values[1:], true[1:])):
        yield "shape unusual", f"it makes values of shape {values} of y_pred of shape {pred}."


def _is_within(shape: Shape, whole: Shape) -> bool:
    """Whether the axes of `shape` are some of `whole`, in order."""
    rest = iter(whole)
    return all(any(n == m for m in rest) for n in shape)


_Search = Callable[[int, Part, Evidence, Summary], Iterator[Finding]]
_SEARCHES: tuple[_Search, ...] = (
    *(_not_finite, _without_gradient, _dominates, _conflicts, _ignores),
    *(domains.out_of_domain, _shape),
)
