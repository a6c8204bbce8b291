"""Checks of what a model is compiled with, beside its losses: its optimizer, its compiler."""

import warnings
from collections.abc import Sequence

import keras

from combined_losses._backend import keras_private
from combined_losses._core.compound import Compound, weighted_means
from combined_losses._core.names import quoted


def warn_of_accumulation(
    optimizer: keras.optimizers.Optimizer | None, compounds: Sequence[Compound]
) -> None:
    """Warns if an optimizer accumulates gradients of means over sample weights.

    It averages the means of several batches as if the sums of their weights were equal.
    """
    optimizer = keras_private.inner_optimizer(optimizer)
    steps = getattr(optimizer, "gradient_accumulation_steps", None)
    names = [name for loss in compounds for name in weighted_means(loss, loss.name)]
    if not steps or not names:
        return
    warnings.warn(
        f"{quoted(names)}: a mean over the sample weights of a batch. With "
        f"`gradient_accumulation_steps={steps}` the optimizer averages {steps} such means as if "
        "their sums of weights were equal, so a sample counts more in a batch of small weights. To "
        f"get the mean of all {steps} batches, use batches of one size and the reduction "
        "'sum_over_batch_size'. "
        "Received: reduction='mean_with_sample_weight'",
        stacklevel=4,
    )


def check_compiler(model: keras.Model, compounds: Sequence[Compound]) -> None:
    """Raises where XLA compiles a loss for TensorFlow that asks the host in every step."""
    names = [each.name for loss in compounds for each in loss.compounds() if each.calls_host]
    if names and keras.backend.backend() == "tensorflow" and model.jit_compile:
        raise ValueError(
            f"{quoted(names)} asks the host in every step, which XLA cannot do on TensorFlow: "
            "compile the model with `jit_compile=False`. (Keras's default on a GPU is XLA.) "
            "Received: jit_compile=True"
        )
