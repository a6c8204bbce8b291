"""From what was measured of components to what is wrong with them."""

from typing import NamedTuple

import numpy as np

from combined_losses._core.traits import Traits
from combined_losses.diagnosis import domains
from combined_losses.diagnosis.evidence import may_broadcast

DOMINATES = 0.95
CONFLICTS = -0.5


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


def find_faults(summary, evidence):
    """The faults of all parts, in order, from a `Summary` and the `Evidence` behind it."""
    faults = []
    for index, part in enumerate(summary.parts):
        if summary.weights[index] == 0:  # switched off, and cut off from the gradient
            continue
        for search in _SEARCHES:
            faults += [Fault(part.name, *pair) for pair in search(index, part, evidence, summary)]
    return faults


# Searches: functions of a part that give pairs of a flag and a message.


def _not_finite(index, part, evidence, summary):
    values = evidence.values
    others = any(not np.isfinite(values[i]) for i in summary.siblings(index))
    # The gradients of parts of one array are taken together: 0 * NaN of another part is NaN.
    is_of_another = np.isfinite(values[index]) and not part.is_own and others
    if not evidence.not_finite[index] or is_of_another:
        return
    what = "value" if not np.isfinite(evidence.values[index]) else "gradient"
    message = f"its {what} is NaN or infinite"
    places = evidence.faulty_samples(index)
    if places is not None:
        shown = ", ".join(map(str, places[:5])) + (", …" if len(places) > 5 else "")
        message += f" in {len(places)} of {evidence.samples} samples ({shown})"
        message += _classes(evidence, places)
    yield "not finite", f"{message}."


def _classes(evidence, places):
    """The classes of faulty samples, where they are not those of all samples."""
    if any(labels is None for labels in evidence.labels):
        return ""
    labels = np.concatenate(evidence.labels)
    faulty, every = np.unique(labels[places]), np.unique(labels)
    if len(faulty) == len(every) or len(faulty) > 5:
        return ""
    what = "class" if len(faulty) == 1 else "classes"
    return f", all of {what} {', '.join(map(str, faulty))}"


def _without_gradient(index, part, evidence, summary):
    if not evidence.without_gradient[index] or evidence.not_finite[index]:
        return
    if summary.beyond[index]:
        return
    zero, reacts = evidence.always_zero[index], evidence.reacts[index]
    if not reacts:
        value = "0" if zero else f"{evidence.values[index]:.4g}"
        message = f"it is {value}, whatever the predictions{_one_channel(part, evidence)}."
        yield "always zero" if zero else "constant", message
    elif not zero:
        yield "no gradient", "its value changes with the predictions, its gradient is 0 everywhere."


def _one_channel(part, evidence):
    seen = evidence.observed.get(part.name)
    if seen is None or seen.traits == Traits() or seen.traits.elementwise:
        return ""
    if seen.y_pred is None or seen.y_pred[-1:] != (1,):
        return ""
    return (
        ": there is one channel, and a softmax over one class is always 1; for a single yes-or-no "
        "output take the binary loss"
    )


def _dominates(index, part, evidence, summary):
    share, of_loss = summary.gradient_shares[index], summary.shares[index]
    live = [i for i in summary.siblings(index) if summary.gradient_shares[i] > 0]
    # A cross-entropy is steep at a probability near 0, where the network is flat: at the output
    # the share of the gradient alone says little.
    least = share if summary.at == "parameters" else min(share, of_loss)
    if live and least > DOMINATES:
        message = f"it has {_percent(share)} of the gradient, {_percent(of_loss)} of the loss."
        yield "dominates", message


def _percent(share):
    return f"{100 * share:.4g} %" if share < 0.9999 else "over 99.99 %"


def _conflicts(index, part, evidence, summary):
    cosines = {summary.names[i]: summary.cosines[index, i] for i in summary.siblings(index)}
    against = [f"'{name}' (cosine {c:.2f})" for name, c in cosines.items() if c < CONFLICTS]
    if against:
        yield "conflicts", f"it pulls against {', '.join(against)}."


def _ignores(index, part, evidence, summary):
    is_constant = evidence.without_gradient[index] and not evidence.reacts[index]
    if is_constant or part.is_beyond_output:
        return
    inside = [
        seen for name, seen in evidence.observed.items() if f"{name}/".startswith(f"{part.name}/")
    ]
    for what, other in (("sample weights", "other ones"), ("mask", "another one")):
        given = any(what in seen.weights for seen in inside)
        # A part that reads them may be lost in the rounding of a large one beside it.
        parts = [i for i in summary.descendants(index) if evidence.values[i] != 0]
        if given and evidence.ignores(what)[[index, *parts]].all():
            yield f"ignores {what}", f"its value is the same with {other}."


def _shape(index, part, evidence, summary):
    seen = evidence.observed.get(part.name)
    if seen is None or seen.traits != Traits() or seen.y_pred is None:
        return
    pred, true = seen.y_pred, seen.y_true or seen.y_pred
    if may_broadcast(seen) and evidence.broadcasts is not None and evidence.broadcasts[index]:
        yield "shape unusual", f"y_true of shape {true} is broadcast against y_pred, {pred}."
    elif not (_is_within(seen.values[1:], pred[1:]) or _is_within(seen.values[1:], true[1:])):
        yield "shape unusual", f"it makes values of shape {seen.values} of y_pred of shape {pred}."


def _is_within(shape, whole):
    """Whether the axes of `shape` are some of `whole`, in order."""
    whole = iter(whole)
    return all(any(n == m for m in whole) for n in shape)


_SEARCHES = (
    *(_not_finite, _without_gradient, _dominates, _conflicts, _ignores),
    *(domains.out_of_domain, _shape),
)
