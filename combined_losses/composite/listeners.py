"""The models that train on a composite. A composite knows them only as listeners."""

import contextlib
import weakref
from collections.abc import Iterator
from typing import Protocol


class Listener(Protocol):
    """A model that is compiled with a composite."""

    def sync(self) -> None:
        """Writes the state that a running step holds back into the variables."""

    def rebuild(self) -> None:
        """Discards compiled steps that hold state of the composite which has changed."""

    def held_still(self) -> contextlib.AbstractContextManager[bool]:
        """A block in which the model cannot begin to run in another thread.

        The block is given whether the model does not run in another thread already.
        """


class Listeners:
    """The listeners of a composite, as long as they live."""

    def __init__(self) -> None:
        self._alive: weakref.WeakSet[Listener] = weakref.WeakSet()

    def __bool__(self) -> bool:
        return bool(self._alive)

    def add(self, listener: Listener) -> None:
        self._alive.add(listener)

    def sync(self) -> None:
        """Called before state is read or written.

        On JAX a running `fit` keeps the state outside of the variables: they are out of date, and
        the next step would overwrite what is assigned to them.
        """
        for listener in self._alive:
            listener.sync()

    def rebuild(self) -> None:
        for listener in self._alive:
            listener.rebuild()

    @contextlib.contextmanager
    def held_still(self) -> Iterator[bool]:
        """A block in which none of the models can begin to run in another thread.

        The block is given whether none of them runs in another thread already: then it may change
        state.
        """
        with contextlib.ExitStack() as stack:
            # Always in the same order, so that two threads cannot wait for each other.
            models = sorted(self._alive, key=id)
            none_runs = [stack.enter_context(model.held_still()) for model in models]
            yield all(none_runs)
