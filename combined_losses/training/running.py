"""In which thread a model runs: from others its state changes between two steps."""

import contextlib
import threading
from collections.abc import Callable, Iterator


class Running:
    """In which thread a model runs, and the lock to hold while that, or state, is changed."""

    def __init__(self) -> None:
        self.thread: int | None = None
        self.lock = threading.RLock()

    @contextlib.contextmanager
    def held_still(self) -> Iterator[bool]:
        with self.lock:
            yield self.thread in (None, threading.get_ident())

    @contextlib.contextmanager
    def here(self, then: Callable[[], None]) -> Iterator[None]:
        """In the block the model runs in this thread; `then` is called when it has ended."""
        if self.thread is not None:  # within an outer block
            yield
            return
        with self.lock:
            self.thread = threading.get_ident()
        try:
            yield
        finally:
            with self.lock:
                self.thread = None
                then()
