"""How far neighbouring pixels are apart: the argument `spacing`."""

from collections.abc import Sequence
from typing import Any, TypeAlias

from combined_losses._core.checks import are_numbers, is_number

Spacing: TypeAlias = float | Sequence[float] | None
"""How far neighbours are apart: along every axis of an image, along each, or 1."""


def check_spacing(owner: str, spacing: Any) -> None:
    numbers = [spacing] if is_number(spacing) else spacing
    if spacing is None or (are_numbers(numbers) and min(numbers) > 0):
        return
    raise ValueError(
        f"The argument `spacing` of {owner} must be None, a number above 0, or a list of one for "
        f"each spatial axis. Received: {spacing!r}"
    )


def steps(owner: str, spacing: Spacing, axes: int) -> list[float]:
    """The spacing along each axis."""
    if spacing is None:
        return [1.0] * axes
    if isinstance(spacing, (int, float)):
        return [float(spacing)] * axes
    if len(spacing) != axes:
        raise ValueError(
            f"The argument `spacing` of {owner} must have one number for each of the {axes} axes "
            f"of an image. Received: {spacing!r}"
        )
    return [float(step) for step in spacing]
