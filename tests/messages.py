"""What an error must say: what is wrong, what is allowed, how to fix it, what was given."""

import contextlib

import pytest


@contextlib.contextmanager
def raises(error, *parts):
    """The block raises `error` with every one of `parts` in its message or in its notes."""
    with pytest.raises(error) as caught:
        yield
    message = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    missing = [part for part in parts if part not in message]
    assert not missing, f"not said: {missing}\nsaid: {message}"
