"""What TensorFlow keeps of compiled functions for as long as the process lives."""

import contextlib
from collections.abc import Iterator

from tensorflow.python.framework import ops  # private: nothing public reaches the registry


@contextlib.contextmanager
def forgetting() -> Iterator[None]:
    # TensorFlow 2.21: each use of `tf.custom_gradient` in a compiled function, of which a step of
    # Keras has two, is registered under a name of its own, which holds the graph for ever: 5 to 10
    # MiB for each model that is trained. Only a gradient of that graph looks the name up.
    registry = _registry()
    before = set(registry)
    try:
        yield
    finally:
        for name in set(registry) - before:
            if name.startswith("CustomGradient-"):
                del registry[name]


def _registry() -> dict[str, object]:
    """The registered gradients by name; an empty dict where TensorFlow keeps them elsewhere."""
    return getattr(getattr(ops, "gradient_registry", None), "_registry", {})
