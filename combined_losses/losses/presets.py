"""Sums of losses that have a name of their own. Each function returns a `CompositeLoss`.

Their parts are visible in the logs, and they can do all that a composite can: `weights=`,
`weighting=`, `set_weight`, operators. Cross-entropies are focal losses with `gamma=0`: these have a
slope even at probabilities of 0 and 1, where Keras's are flat.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, Unpack

from combined_losses._core.checks import check_flag, check_number
from combined_losses._core.keras_types import (
    CompositeArguments,
    DataFormat,
    KerasLoss,
    KerasSchedule,
)
from combined_losses.composite.loss import CompositeLoss
from combined_losses.losses.classification import BinaryFocal, CategoricalFocal
from combined_losses.losses.regions import Dice, FocalTversky, GeneralizedDice
from combined_losses.losses.regions.base import LogitsRegion
from combined_losses.weightings.base import Weighting
from combined_losses.wrappers import Activated, Masked

__all__ = ["combo", "dice_bce", "dice_ce", "dice_focal", "generalized_dice_focal", "unified_focal"]


class PresetArguments(CompositeArguments, total=False):
    """What a function here takes beside its own arguments, as `CompositeLoss` does."""

    weights: Mapping[str, float | KerasSchedule] | Sequence[float | KerasSchedule] | None
    on_nonfinite: Literal["propagate", "skip"]


class RuledPresetArguments(PresetArguments, total=False):
    """Those, and a rule that moves the weights of the parts."""

    weighting: Weighting | None


def dice_bce(
    smooth: float = 1.0,
    from_logits: bool = False,
    *,
    multilabel: bool = False,
    label_smoothing: float = 0.0,
    ignore_value: float | None = None,
    data_format: DataFormat = None,
    **kwargs: Unpack[RuledPresetArguments],
) -> CompositeLoss:
    """`Dice` plus binary cross-entropy, for masks: of one object, or of several that may overlap.

    Args:
        smooth: as in `Dice`. Default 1.0.
        from_logits: whether `y_pred` holds logits, which go through a sigmoid. Default False.
        multilabel: whether the channels are independent, as in `Dice`, so that missing labels are
            those of single entries. Each channel has its own sigmoid in any case. Default False.
        label_smoothing: as in `BinaryFocal`, of the part `bce` alone. Default 0.0.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        data_format: where the channels are, as in `Dice`. Default None: as Keras's setting says.
        **kwargs: as in `CompositeLoss`: `weights`, `weighting`, `reduction`, `name`, `dtype`.

    Returns:
        A `CompositeLoss` with the parts `dice` and `bce`.

    Example:

    >>> import combined_losses as cl
    >>> loss = cl.losses.dice_bce(from_logits=True, weights={"bce": 0.5})
    >>> sorted(loss.weights.items())
    [('bce', 0.5), ('dice', 1.0)]

    Taghanaki et al. 2019 (arXiv 1805.02798) and many others.
    """
    check_flag("dice_bce", "from_logits", from_logits)
    check_flag("dice_bce", "multilabel", multilabel)
    dice = Dice(smooth, multilabel=multilabel, ignore_value=ignore_value, data_format=data_format)
    bce = _binary(0.0, None, from_logits, label_smoothing, data_format)
    parts = {
        "dice": _of_logits(dice, from_logits, "sigmoid"),
        "bce": _masked(bce, ignore_value),
    }
    return _composite(parts, {"name": "dice_bce"}, kwargs)


def dice_ce(
    smooth: float = 1.0,
    from_logits: bool = False,
    *,
    include_background: bool = True,
    multilabel: bool = False,
    label_smoothing: float = 0.0,
    ignore_value: float | None = None,
    data_format: DataFormat = None,
    **kwargs: Unpack[RuledPresetArguments],
) -> CompositeLoss:
    """`Dice` plus categorical cross-entropy, for one-hot maps of classes that exclude each other.

    Args:
        smooth: as in `Dice`. Default 1.0.
        from_logits: whether `y_pred` holds logits, which go through a softmax over the channels.
            Default False.
        include_background: whether `Dice` counts channel 0. Default True.
        multilabel: whether the channels are independent, as masks that may overlap: each then has
            its own sigmoid, and `ce` is binary cross-entropy, the mean over the channels. Default
            False.
        label_smoothing: as in `BinaryFocal`, of the part `ce` alone. Default 0.0.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        data_format: where the channels are, as in `Dice`. Default None: as Keras's setting says.
        **kwargs: as in `CompositeLoss`: `weights`, `weighting`, `reduction`, `name`, `dtype`.

    Returns:
        A `CompositeLoss` with the parts `dice` and `ce`.

    Example:

    >>> import combined_losses as cl
    >>> cl.losses.dice_ce(include_background=False).names
    ('dice', 'ce')

    Isensee et al. 2021 (nnU-Net), arXiv 1809.10486.
    """
    dice = Dice(
        smooth,
        include_background=include_background,
        from_logits=from_logits,
        multilabel=multilabel,
        ignore_value=ignore_value,
        data_format=data_format,
    )
    ce = _focal(0.0, not multilabel, from_logits, label_smoothing, data_format)
    return _composite({"dice": dice, "ce": _masked(ce, ignore_value)}, {"name": "dice_ce"}, kwargs)


def dice_focal(
    gamma: float = 2.0,
    smooth: float = 1.0,
    *,
    multiclass: bool = False,
    from_logits: bool = False,
    multilabel: bool = False,
    label_smoothing: float = 0.0,
    ignore_value: float | None = None,
    data_format: DataFormat = None,
    **kwargs: Unpack[RuledPresetArguments],
) -> CompositeLoss:
    """`Dice` plus a focal loss, for objects so small that easy background outweighs them.

    Args:
        gamma: as in `BinaryFocal`. Default 2.0.
        smooth: as in `Dice`. Default 1.0.
        multiclass: False (default): masks, `BinaryFocal` in every channel; True: one-hot maps of
            classes that exclude each other, `CategoricalFocal`.
        from_logits: whether `y_pred` holds logits, which go through a sigmoid in each channel or,
            with `multiclass`, through a softmax over the channels. Default False.
        multilabel: whether the channels are independent, as in `Dice`; `multiclass` is then
            ignored. Default False.
        label_smoothing: as in `BinaryFocal`, of the part `focal` alone. Default 0.0.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        data_format: where the channels are, as in `Dice`. Default None: as Keras's setting says.
        **kwargs: as in `CompositeLoss`: `weights`, `weighting`, `reduction`, `name`, `dtype`.

    Returns:
        A `CompositeLoss` with the parts `dice` and `focal`.

    Example:

    >>> import combined_losses as cl
    >>> cl.losses.dice_focal(gamma=1.0, weights={"focal": 10.0}).names
    ('dice', 'focal')

    Zhu et al. 2019 (AnatomyNet), arXiv 1808.05238.
    """
    dice = Dice(smooth, multilabel=multilabel, ignore_value=ignore_value, data_format=data_format)
    kinds = multiclass, from_logits, label_smoothing
    return _with_focal("dice_focal", {"dice": dice}, gamma, kinds, data_format, kwargs)


def generalized_dice_focal(
    gamma: float = 2.0,
    weighting: Literal["square", "simple", "uniform"] = "square",
    *,
    smooth: float = 1.0,
    multiclass: bool = True,
    from_logits: bool = False,
    multilabel: bool = False,
    label_smoothing: float = 0.0,
    ignore_value: float | None = None,
    data_format: DataFormat = None,
    **kwargs: Unpack[PresetArguments],
) -> CompositeLoss:
    """`GeneralizedDice` plus a focal loss, for classes of very different sizes.

    Args:
        gamma: as in `CategoricalFocal`. Default 2.0.
        weighting: as in `GeneralizedDice`: how it weighs the classes. Default `"square"`. (For a
            rule that moves the weights of the parts, build the sum yourself:
            `CompositeLoss([...], weighting=...)`.)
        smooth: as in `GeneralizedDice`. Default 1.0.
        multiclass: True (default): one-hot maps of classes that exclude each other,
            `CategoricalFocal`; False: masks, `BinaryFocal` in every channel.
        from_logits: whether `y_pred` holds logits, which go through a softmax over the channels or,
            without `multiclass`, through a sigmoid in each. Default False.
        multilabel: whether the channels are independent, as in `Dice`; `multiclass` is then
            ignored. Default False.
        label_smoothing: as in `BinaryFocal`, of the part `focal` alone. Default 0.0.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        data_format: where the channels are, as in `Dice`. Default None: as Keras's setting says.
        **kwargs: as in `CompositeLoss`: `weights`, `reduction`, `name`, `dtype`.

    Returns:
        A `CompositeLoss` with the parts `generalized_dice` and `focal`.

    Example:

    >>> import combined_losses as cl
    >>> cl.losses.generalized_dice_focal(weighting="simple").names
    ('generalized_dice', 'focal')

    Sudre et al. 2017, arXiv 1707.03237; Lin et al. 2017, arXiv 1708.02002.
    """
    region = GeneralizedDice(
        weighting,
        smooth,
        multilabel=multilabel,
        ignore_value=ignore_value,
        data_format=data_format,
    )
    name, part = "generalized_dice_focal", "generalized_dice"
    kinds = multiclass, from_logits, label_smoothing
    return _with_focal(name, {part: region}, gamma, kinds, data_format, kwargs)


def unified_focal(
    weight: float = 0.5,
    delta: float = 0.6,
    *,
    gamma: float = 0.5,
    smooth: float = 1.0,
    from_logits: bool = False,
    multilabel: bool = False,
    label_smoothing: float = 0.0,
    ignore_value: float | None = None,
    data_format: DataFormat = None,
    **kwargs: Unpack[RuledPresetArguments],
) -> CompositeLoss:
    """The symmetric Unified Focal loss: a focal plus a focal Tversky loss, set by three numbers.

    `weight * BinaryFocal(1 - gamma, alpha=delta) + (1 - weight) * FocalTversky(gamma,
    fp_weight=1 - delta, fn_weight=delta)`.

    Args:
        weight: the weight of the focal part, in [0, 1]; the Tversky part has `1 - weight`. Default
            0.5.
        delta: the price of missing the object, in [0, 1]; a false alarm has `1 - delta`. Default
            0.6.
        gamma: in (0, 1]. The smaller it is, the more the focal part fades out right predictions,
            and the larger the slope that the Tversky part keeps for them. Default 0.5.
        smooth: as in `FocalTversky`. Default 1.0.
        from_logits: whether `y_pred` holds logits, which go through a sigmoid. Default False.
        multilabel: whether the channels are independent, as in `Dice`, so that missing labels are
            those of single entries. Each channel has its own sigmoid in any case. Default False.
        label_smoothing: as in `BinaryFocal`, of the part `focal` alone. Default 0.0.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        data_format: where the channels are, as in `Dice`. Default None: as Keras's setting says.
        **kwargs: as in `CompositeLoss`: `weighting`, `reduction`, `name`, `dtype`.

    Returns:
        A `CompositeLoss` with the parts `focal` and `focal_tversky`, and their weights.

    Raises:
        ValueError: if an argument is outside its range.

    Example:

    >>> import combined_losses as cl
    >>> sorted(cl.losses.unified_focal(weight=0.25).weights.items())
    [('focal', 0.25), ('focal_tversky', 0.75)]

    Yeung et al. 2022 (Computerized Medical Imaging and Graphics), arXiv 2102.04525.
    """
    check_number("unified_focal", "weight", weight, minimum=0, maximum=1)
    check_number("unified_focal", "delta", delta, minimum=0, maximum=1)
    check_number("unified_focal", "gamma", gamma, minimum=0, exclusive=True, maximum=1)
    check_flag("unified_focal", "from_logits", from_logits)
    check_flag("unified_focal", "multilabel", multilabel)
    focal = _binary(1 - gamma, delta, from_logits, label_smoothing, data_format)
    tversky = FocalTversky(
        gamma,
        1 - delta,
        fn_weight=delta,
        smooth=smooth,
        multilabel=multilabel,
        ignore_value=ignore_value,
        data_format=data_format,
    )
    parts = {
        "focal": _masked(focal, ignore_value),
        "focal_tversky": _of_logits(tversky, from_logits, "sigmoid"),
    }
    weights = {"focal": weight, "focal_tversky": 1 - weight}
    return _composite(parts, {"name": "unified_focal", "weights": weights}, kwargs)


def combo(
    alpha: float = 0.5,
    beta: float = 0.5,
    *,
    smooth: float = 1.0,
    from_logits: bool = False,
    multilabel: bool = False,
    label_smoothing: float = 0.0,
    ignore_value: float | None = None,
    data_format: DataFormat = None,
    **kwargs: Unpack[RuledPresetArguments],
) -> CompositeLoss:
    """The Combo loss: cross-entropy with a price for each side, plus `Dice`.

    `alpha * CE + (1 - alpha) * Dice`, `CE = -(beta y log p + (1 - beta) (1 - y) log(1 - p))`. The
    paper subtracts the Dice coefficient, `- (1 - alpha) DSC`, instead of adding a loss: its value
    is less by `1 - alpha`, its slope is the same.

    Args:
        alpha: the weight of the cross-entropy, in [0, 1]; `Dice` has `1 - alpha`. Default 0.5.
        beta: the price of missing the object, in [0, 1]; a false alarm has `1 - beta`. Default 0.5.
        smooth: as in `Dice`. Default 1.0.
        from_logits: whether `y_pred` holds logits, which go through a sigmoid. Default False.
        multilabel: whether the channels are independent, as in `Dice`, so that missing labels are
            those of single entries. Each channel has its own sigmoid in any case. Default False.
        label_smoothing: as in `BinaryFocal`, of the part `cross_entropy` alone. Default 0.0.
        ignore_value: None (default), or the number in `y_true` that marks void pixels, also `nan`.
        data_format: where the channels are, as in `Dice`. Default None: as Keras's setting says.
        **kwargs: as in `CompositeLoss`: `weighting`, `reduction`, `name`, `dtype`.

    Returns:
        A `CompositeLoss` with the parts `cross_entropy` and `dice`, and their weights.

    Raises:
        ValueError: if an argument is outside its range.

    Example:

    >>> import combined_losses as cl
    >>> sorted(cl.losses.combo(alpha=0.75).weights.items())
    [('cross_entropy', 0.75), ('dice', 0.25)]

    Taghanaki et al. 2019 (Computerized Medical Imaging and Graphics), arXiv 1805.02798.
    """
    check_number("combo", "alpha", alpha, minimum=0, maximum=1)
    check_number("combo", "beta", beta, minimum=0, maximum=1)
    check_flag("combo", "from_logits", from_logits)
    check_flag("combo", "multilabel", multilabel)
    cross_entropy = _binary(0.0, beta, from_logits, label_smoothing, data_format)
    dice = Dice(smooth, multilabel=multilabel, ignore_value=ignore_value, data_format=data_format)
    parts = {
        "cross_entropy": _masked(cross_entropy, ignore_value),
        "dice": _of_logits(dice, from_logits, "sigmoid"),
    }
    weights = {"cross_entropy": alpha, "dice": 1 - alpha}
    return _composite(parts, {"name": "combo", "weights": weights}, kwargs)


def _with_focal(
    name: str,
    named: Mapping[str, Dice | GeneralizedDice],
    gamma: float,
    kinds: tuple[bool, bool, float],
    data_format: DataFormat,
    kwargs: PresetArguments,
) -> CompositeLoss:
    """A region loss, `{part: region}`, and the focal loss of the same channels and void pixels.

    `kinds` are the arguments `multiclass`, `from_logits` and `label_smoothing`.
    """
    [(part, region)], (multiclass, from_logits, label_smoothing) = named.items(), kinds
    check_flag(name, "multiclass", multiclass)
    check_flag(name, "from_logits", from_logits)
    multiclass = multiclass and not region.multilabel
    focal = _focal(gamma, multiclass, from_logits, label_smoothing, data_format)
    parts = {
        part: _of_logits(region, from_logits, "softmax" if multiclass else "sigmoid"),
        "focal": _masked(focal, region.ignore_value),
    }
    return _composite(parts, {"name": name}, kwargs)


def _composite(
    parts: Mapping[str, KerasLoss], defaults: PresetArguments, given: PresetArguments
) -> CompositeLoss:
    """The sum of the parts; what the user has `given` replaces the `defaults`."""
    arguments: PresetArguments = {**defaults, **given}
    return CompositeLoss(parts, **arguments)


def _focal(
    gamma: float,
    multiclass: bool,
    from_logits: bool,
    label_smoothing: float,
    data_format: DataFormat,
) -> BinaryFocal | CategoricalFocal:
    """The focal loss of classes that exclude each other, or that of independent channels."""
    if not multiclass:
        return _binary(gamma, None, from_logits, label_smoothing, data_format)
    return CategoricalFocal(
        gamma, label_smoothing=label_smoothing, from_logits=from_logits, data_format=data_format
    )


def _binary(
    gamma: float,
    alpha: float | None,
    from_logits: bool,
    label_smoothing: float,
    data_format: DataFormat,
) -> BinaryFocal:
    return BinaryFocal(
        gamma,
        alpha,
        label_smoothing=label_smoothing,
        from_logits=from_logits,
        data_format=data_format,
    )


def _of_logits(
    region: LogitsRegion, from_logits: bool, activation: Literal["sigmoid", "softmax"]
) -> KerasLoss:
    """A region loss on logits, which go through the same activation as in the pixel loss."""
    return Activated(region, activation) if from_logits else region


def _masked(pixel: BinaryFocal | CategoricalFocal, ignore_value: float | None) -> KerasLoss:
    """A pixel loss that leaves out void pixels."""
    return pixel if ignore_value is None else Masked(pixel, mask_value=ignore_value)
