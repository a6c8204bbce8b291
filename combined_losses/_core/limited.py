"""How many entries an argument may hold: Keras goes slowly through what it stores."""

from typing import Any, Self

MOST_ENTRIES = 100_000  # of an argument, so that a small file cannot ask for gigabytes


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
    """Raises where more parts or entries are asked for than anybody needs."""
    if count > MOST_ENTRIES:
        raise ValueError(
            f"{what} may have at most {MOST_ENTRIES:,} entries. Received: {count:,} entries"
        )
