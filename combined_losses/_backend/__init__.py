"""`backend`: the functions that differ between the frameworks, those of the framework in use."""

import keras

from combined_losses._backend.protocol import Backend

backend: Backend
if keras.backend.backend() == "tensorflow":
    from combined_losses._backend import tensorflow

    backend = tensorflow
elif keras.backend.backend() == "jax":
    from combined_losses._backend import jax

    backend = jax
else:
    from combined_losses._backend import torch

    backend = torch

__all__ = ["backend"]
