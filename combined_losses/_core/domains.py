"""What the numbers mean that a loss compares: shares, classes, ids, images, probabilities.

Losses of this library say it by the class attributes `target_kind` and `prediction_kind`; for
Keras's losses there is a table here. Nothing is known, or checked, of any other loss.
"""

import contextlib
import contextvars
import math
import numbers
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, TypeGuard

import keras
import numpy as np
from keras import ops

from combined_losses._core.batch import Batch
from combined_losses._core.traits import is_ours, keras_function, says
from combined_losses._numerics.arrays import Tensor

# The range in which targets of each kind must lie. Not here: "ids" (class ids) and "images", whose
# range depends on arguments of the loss, and "labels", which may be any whole numbers.
RANGES = {
    "shares": (0.0, 1.0),  # masks, or independent labels, hard or soft
    "classes": (0.0, 1.0),  # one-hot or soft rows of classes that exclude each other
    "signs": (-1.0, 1.0),
    "amounts": (0.0, float("inf")),
}
WHOLE = ("ids", "labels")
KINDS = (None, *RANGES, *WHOLE, "images")


class Domain(NamedTuple):
    """What the targets and predictions of a loss mean.

    Attributes:
        targets: one of `KINDS`; None: any number, or unknown.
        predictions: "probabilities", or None: any number, or unknown.
        classes: how many classes there are, if the loss says so.
        max_value: the range that images span.
        voids: the numbers that stand for missing or void targets.
    """

    targets: str | None = None
    predictions: str | None = None
    classes: int | None = None
    max_value: float | None = None
    voids: frozenset[float] = frozenset()


def domain_of(loss: Any) -> Domain:
    """The `Domain` of a single loss, or of the loss that a string or function stands for."""
    targets, predictions = _kinds(loss)
    if getattr(loss, "from_logits", False):
        predictions = None
    if targets == "classes" and getattr(loss, "multilabel", False):
        targets = "shares"
    found = Domain(targets, predictions, voids=own_voids(loss))
    if targets == "ids":
        found = found._replace(classes=getattr(loss, "num_classes", None))
    return found._replace(
        max_value=getattr(loss, "max_value", None) if targets == "images" else None
    )


def _kinds(loss: Any) -> tuple[str | None, str | None]:
    function = keras_function(loss)
    if function is not None:
        return _OF_KERAS.get(function.__name__, (None, None))
    return _claim(loss, "target_kind"), _claim(loss, "prediction_kind")


def _claim(loss: Any, name: str) -> str | None:
    """The attribute as `says` finds it, unless a user's class overrides the `call` it describes."""
    bases = type(loss).__mro__
    giver = next((i for i, base in enumerate(bases) if "call" in vars(base)), 0)
    place = next((i for i, base in enumerate(bases) if name in vars(base)), 0)
    ours = is_ours(bases[giver])
    meant = [base for base in bases[place:] if "call" in vars(base) and base is not _LOSS]
    claim: str | None = says(loss, name) if ours or giver >= place or not meant else None
    return claim


def own_voids(loss: object) -> frozenset[float]:
    """The targets that this loss itself, not a loss inside it, takes for missing or void."""
    names = ("mask_value", "ignore_value", "ignore_class")
    own = (getattr(loss, name, None) for name in names)
    return frozenset(filter(_is_real, own))


def _is_real(number: object) -> TypeGuard[float]:
    return isinstance(number, numbers.Real)


def is_void(array: Tensor, voids: Iterable[float]) -> Tensor | None:
    """The places whose target is one of the numbers `voids`; None if there are no such numbers."""
    found = None
    for number in voids:
        same = ops.isnan(array) if math.isnan(number) else ops.equal(array, float(number))
        found = same if found is None else ops.logical_or(found, same)
    return found


_LOSS = keras.losses.Loss
_SHARES, _CLASSES = ("shares", "probabilities"), ("classes", "probabilities")
_OF_KERAS: dict[str, tuple[str | None, str | None]] = {
    "binary_crossentropy": _SHARES,
    "binary_focal_crossentropy": _SHARES,
    "dice": _SHARES,
    "tversky": _SHARES,
    "categorical_crossentropy": _CLASSES,
    "categorical_focal_crossentropy": _CLASSES,
    "kl_divergence": _CLASSES,
    "categorical_hinge": ("classes", None),
    "sparse_categorical_crossentropy": ("ids", "probabilities"),
    "categorical_generalized_cross_entropy": ("ids", "probabilities"),
    "circle": ("labels", None),
    "hinge": ("signs", None),
    "squared_hinge": ("signs", None),
    "mean_squared_logarithmic_error": ("amounts", None),
    "poisson": ("amounts", None),
}


# The numbers that losses are given, so that `cl.diagnose` can compare them with the domains.


class Facts:
    """What single losses were given in one evaluation, each by the label of its component.

    Attributes:
        domains: by label a list of pairs: the `Domain` of a loss and its number of classes.
        numbers: by label a list of tensors `(6,)`, one for each entry of `domains`: the smallest
            and the largest target, 1 if a target is not a whole number, 1 if one is missing, the
            smallest and the largest prediction. Rows of weight 0 are left out; if no row is left,
            the smallest is infinity and the largest minus infinity.
        notes: by label a list of pairs: a flag and a message.
    """

    def __init__(self) -> None:
        self.domains: dict[str, list[tuple[Domain, int | None]]] = {}
        self.numbers: dict[str, list[Tensor]] = {}
        self.notes: dict[str, list[tuple[str, str]]] = {}

    def add_note(self, label: str, flag: str, message: str) -> None:
        """Adds a message that does not depend on the numbers."""
        self.notes.setdefault(label, []).append((flag, message))


_facts: contextvars.ContextVar[Facts | None] = contextvars.ContextVar(
    "combined_losses_facts", default=None
)


@contextlib.contextmanager
def examining() -> Iterator[Facts]:
    """A block in which losses record what they are given in the `Facts` that it yields."""
    facts = Facts()
    token = _facts.set(facts)
    try:
        yield facts
    finally:
        _facts.reset(token)


examined = _facts.get
"""`examined()` is the `Facts` of the surrounding `examining()` block, or None."""


def examine(label: str, loss: Any, batch: Batch, y_true: Any, y_pred: Any, axis: int = -1) -> None:
    """Records what a loss is given, if an `examining()` block is open."""
    if examined() is None or keras.tree.is_nested(y_pred) or keras.tree.is_nested(y_true):
        return
    domain = domain_of(loss)
    classes = domain.classes
    if domain.targets == "ids" and classes is None:
        classes = y_pred.shape[axis]
    leave(label, domain, classes, batch, y_true, y_pred, axis)


def leave(
    label: str,
    domain: Domain,
    classes: int | None,
    batch: Batch,
    y_true: Tensor | None,
    y_pred: Tensor | None,
    axis: int = -1,
) -> None:
    """Records the facts of one loss, or of a wrapper that reads targets itself."""
    facts = examined()
    if facts is None or (domain.targets is None and domain.predictions is None):
        return
    targets = _facts_of(y_true, batch, axis, domain.voids)
    predictions = _facts_of(y_pred, batch, axis, frozenset())[:2]
    facts.domains.setdefault(label, []).append((domain, classes))
    facts.numbers.setdefault(label, []).append(ops.stack([*targets, *predictions]))


def _facts_of(
    array: Tensor | None, batch: Batch, axis: int, voids: Iterable[float]
) -> list[Tensor]:
    """The smallest number, the largest, whether one is not whole, whether one is missing."""
    if array is None:
        return [ops.convert_to_tensor(n, "float32") for n in (math.inf, -math.inf, 0.0, 0.0)]
    counts = batch.used(array, axis)
    array = ops.cast(array, "float32")
    counts = ops.ones_like(array, dtype="bool") if counts is None else counts
    counts = ops.broadcast_to(counts, ops.shape(array))
    void = is_void(array, voids)
    if void is not None:
        counts = ops.logical_and(counts, ops.logical_not(void))
    finite = ops.logical_and(counts, ops.isfinite(array))
    missing = ops.any(ops.logical_and(counts, ops.logical_not(ops.isfinite(array))))
    known = ops.where(finite, array, ops.zeros_like(array))
    found = [
        ops.min(ops.where(finite, array, math.inf), initial=math.inf),
        ops.max(ops.where(finite, array, -math.inf), initial=-math.inf),
        ops.any(ops.not_equal(known, ops.floor(known))),
        missing,
    ]
    return [ops.stop_gradient(ops.cast(fact, "float32")) for fact in found]


def mended(loss: Any, y_true: Tensor, y_pred: Tensor, axis: int = -1) -> Tensor | None:
    """Targets moved into the domain of the loss, except void ones; None: the domain is unknown.

    Keras's losses raise on some targets outside; `cl.diagnose` goes on, to report more than that.
    """
    domain = domain_of(loss)
    if domain.targets in RANGES:
        least, most = RANGES[domain.targets]
    elif domain.targets == "ids":
        least, most = 0, (domain.classes or y_pred.shape[axis]) - 1
    else:
        return None
    wide = ops.cast(y_true, "float32")
    known = ops.where(ops.isnan(wide), float(least), wide)
    inside = ops.clip(known, least, min(most, float(np.finfo("float32").max)))
    void = is_void(wide, domain.voids)
    if void is not None:
        inside = ops.where(void, wide, inside)
    return ops.cast(inside, y_true.dtype)
