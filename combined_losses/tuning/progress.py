"""A progress bar, and one line for each training."""

from typing import Any, Self


class Progress:
    """A bar over a number of trainings; with `verbose=0` nothing is printed."""

    def __init__(self, total: int, verbose: int) -> None:
        from tqdm import tqdm

        self._bar: Any = tqdm(total=total, disable=not verbose, unit="run", leave=False)
        self._verbose = verbose

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def done(self, line: str) -> None:
        """One more training has ended."""
        self._bar.update()
        self.say(line)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if self._verbose:
            self._bar.write(line)
