"""Several processes of JAX that train one model together, under a distribution of Keras."""

from collections.abc import Callable

import jax
import keras
import numpy as np
from jax.experimental import multihost_utils


def begin_together(model: keras.Model, describe: Callable[[], str]) -> None:
    # Processes that compile different steps wait for each other for ever.
    if jax.process_count() == 1 or keras.distribution.distribution() is None:
        return
    shapes = ", ".join(f"{v.path} {tuple(v.shape)}" for v in model.variables)
    own = f"{describe()} with {shapes}"
    found = _of_all(own)
    if len(set(found)) > 1:
        other = next(process for process, each in enumerate(found) if each != found[0])
        raise ValueError(
            f"A model and its loss must be the same in all processes. Received: in process 0 "
            f"{found[0]}; in process {other} {found[other]}"
        )


def _of_all(text: str) -> list[str]:
    """The texts of all processes."""
    own = np.frombuffer(text.encode(), "uint8")
    sizes = np.asarray(multihost_utils.process_allgather(np.array([own.size], "int32")))
    padded = np.zeros(sizes.max(), "uint8")
    padded[: own.size] = own
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [bytes(row[: int(size)]).decode() for row, size in zip(rows, sizes.ravel(), strict=True)]
