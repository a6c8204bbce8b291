"""Numbers of any size in few digits: a power of ten goes into the unit, as in `MSE (1e8 EUR)`."""

import math


def power_of_ten(size: float) -> int:
    """The power of ten to divide numbers of this size by; 0 where they are easy to read."""
    readable = size == 0 or not math.isfinite(size) or 1e-3 <= size < 1e6
    return 0 if readable else math.floor(math.log10(size))


def put_power(label: str, power: int) -> str:
    """A label, which is a name with its unit in brackets, with a power of ten before the unit."""
    return label.replace(" (", f" (1e{power} ", 1) if power else label
