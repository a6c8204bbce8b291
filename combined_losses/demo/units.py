"""Numbers of any size in few digits: a power of ten goes into the unit, as in `MSE (1e8 EUR)`."""

import math


def power_of_ten(size: float) -> int:
    """The power to take out of numbers of this size; 0 where they can be read as they are."""
    readable = size == 0 or not math.isfinite(size) or 1e-3 <= size < 1e6
    return 0 if readable else math.floor(math.log10(size))


def put_power(label: str, power: int) -> str:
    """`label`, a name with its unit in brackets, with a power of ten before the unit."""
    return label.replace(" (", f" (1e{power} ", 1) if power else label
