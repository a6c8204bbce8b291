"""The models that train on a composite: all that it knows of them is that they listen."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Protocol


class Listener(Protocol):
    """A model that is compiled with a composite."""

    def sync(self) -> None:
        """Brings the state that a running step holds back into the variables."""

    def rebuild(self) -> None:
        """Compiles its steps anew, because they hold what is not true any more."""

    def held_still(self) -> contextlib.AbstractContextManager[bool]:
        """In the block no other thread lets it begin to run; gives whether none does already."""


class Listeners:
    """The models that are alive."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[Listener] = weakref.WeakSet()

    def __bool__(self) -> bool:
        return bool(self._alive)

    def add(self, listener: Listener) -> None:
        self._alive.add(listener)

    def sync(self) -> None:
        """Before state is read or written: on JAX a running `fit` keeps it outside of variables.

        Its next step would overwrite what is assigned.
        """
        for listener in self._alive:
            listener.sync()

    def rebuild(self) -> None:
        for listener in self._alive:
            listener.rebuild()

    @contextlib.contextmanager
    def held_still(self) -> Iterator[bool]:
        """In the block no other thread lets one of the models begin to run.

        Gives whether none of them runs in another thread already, so that state may be changed.
        """
        with contextlib.ExitStack() as stack:
            # In one order, so that two threads cannot wait for each other.
            models = sorted(self._alive, key=id)
            free = [stack.enter_context(model.held_still()) for model in models]
            yield all(free)
