"""What the tests of the seams of Keras share, see test_keras_seams.py."""

import functools
import re

import keras
import numpy as np
import pytest

from combined_losses._backend import keras_private
from tests.processes import PACKAGE

X, Y = np.array([[1.0, 2.0], [3.0, -1.0]], "float32"), np.array([[1.0], [2.0]], "float32")


def seam(*functions, files=()):
    """A test of functions of `keras_private`, or of what some files rely on without any.

    A failure says which seam of Keras is another one, and who in the package relies on it.
    """

    def decorate(test):
        @functools.wraps(test)
        def tried(*args, **kwargs):
            try:
                return test(*args, **kwargs)
            except Exception as error:
                what = ", ".join(functions) or test.__name__
                users = [*files, *users_of(functions)]
                raise AssertionError(
                    f"the seam of Keras {what!r} is another one in Keras {keras.__version__} "
                    f"(read in {keras_private.READ_IN}). Who relies on it: {', '.join(users)}. "
                    f"What went wrong: {type(error).__name__}: {error}"
                ) from error

        tried.functions = functions
        return tried

    return decorate


def users_of(functions):
    """The files of the package that use some functions of `keras_private`."""
    if not functions:
        return []
    pattern = re.compile(rf"keras_private\.(?:{'|'.join(functions)})\b")
    return [file for file, text in _texts().items() if pattern.search(text)]


@functools.cache
def _texts():
    """The text of each file of the package but those of `keras_private`."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.parent.name != "keras_private"]
    return {str(path.relative_to(PACKAGE)): path.read_text(encoding="utf-8") for path in files}


def on(name):
    """Skips a test elsewhere than on one backend."""
    other = name != keras.backend.backend()
    return pytest.mark.skipif(other, reason=f"it is a seam of Keras on {name}")


def line(cls=keras.Model, **compiled):
    """A compiled functional model of one layer."""
    inputs = keras.Input((2,))
    model = cls(inputs, keras.layers.Dense(1, name="last")(inputs))
    model.compile(**{"optimizer": "sgd", "loss": "mse", **compiled})
    return model


def numbers(tensor):
    return keras.ops.convert_to_numpy(tensor).tolist()
