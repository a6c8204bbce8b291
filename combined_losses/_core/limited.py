"""The limit on the entries of an argument, because Keras stores and reads long ones slowly."""

from typing import Any, Self

MOST_ENTRIES = 100_000  # so that a small file cannot ask for gigabytes


class Limited:
    """A class whose arguments hold at most 100,000 entries each."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        given: list[tuple[int | str, Any]] = [*enumerate(args, 1), *kwargs.items()]
        for place, value in given:
            if isinstance(value, (list, tuple, dict, set)):
                which = f"`{place}`" if isinstance(place, str) else f"number {place}"
                check_entries(f"The argument {which} of {cls.__name__}", len(value))
        return super().__new__(cls)


def check_entries(what: str, count: int) -> None:
    """Raises if there are more than `MOST_ENTRIES`; `what` begins the message."""
    if count > MOST_ENTRIES:
        raise ValueError(
            f"{what} may have at most {MOST_ENTRIES:,} entries. Received: {count:,} entries"
        )
