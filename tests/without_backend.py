"""Makes TensorFlow unusable, to prove that a test marked `backend_free` needs no backend.

Such a test gives the same answer on every backend, so `.ci/run` runs it once. Everything that
TensorFlow computes goes through one of the functions below: an operation that runs at once, a
constant, an operation of a graph. A test is refused too where it asks which backend is in use, or
starts a process, which may use one.
"""

import contextlib
import subprocess
from unittest import mock


class BackendIsUsedError(AssertionError):
    """A test marked `backend_free` used the backend: remove the mark."""


def _refuse(*args, **kwargs):
    raise BackendIsUsedError("this test is marked `backend_free`, but uses the backend")


@contextlib.contextmanager
def without_backend():
    """Within, whatever uses the backend raises `BackendIsUsedError` (on TensorFlow)."""
    with contextlib.ExitStack() as refused:
        for owner, name in _doors():
            refused.enter_context(mock.patch.object(owner, name, _refuse))
        yield


def _doors():
    import keras  # here, since the main process of pytest-xdist needs no framework

    if keras.backend.backend() != "tensorflow":
        return []
    from tensorflow.python import pywrap_tfe
    from tensorflow.python.framework import constant_op, ops

    return [
        (pywrap_tfe, "TFE_Py_FastPathExecute"),
        (pywrap_tfe, "TFE_Py_Execute"),
        (constant_op, "convert_to_eager_tensor"),
        (ops.Graph, "_create_op_internal"),
        (keras.backend, "backend"),
        (keras.config, "backend"),
        (subprocess, "Popen"),
    ]
