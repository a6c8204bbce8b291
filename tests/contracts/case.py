"""What a case of the registry is, and numbers for it."""

import dataclasses
from collections.abc import Callable

import numpy as np

import combined_losses as cl


@dataclasses.dataclass(frozen=True)
class Case:
    """
    Args:
        loss: the class.
        oracle: its float64 twin, `(y_true, y_pred, **arguments) -> values, gradient`.
        y_true, y_pred: a batch of at least four samples in the domain, away from kinks and ties.
        arguments: every argument of the class that has a default, off its default. The variants of
            a class share them out.
        label: of a variant, what its arguments are.
        fixed: arguments that have one value only.
        repeats: whether with `over="batch"` every value is one number of the whole batch.
        of_batch: whether every value is one number of the whole batch, without an argument `over`.
        required: the arguments without a default.
        wrapped: whether the tests of the wrappers go over it too; it must take any numbers.
        refused: values that the constructor must refuse, for each argument that has a domain.
        perfect: the best prediction of a target, by default the target itself.
        pairwise: whether the samples of a batch are compared in pairs, so that a sample and its
            copy are a pair of their own; or whether more samples are surer of their variance.
        steep: whether the slope is that of logarithms of what may be near 0, such as the quietest
            bin of a spectrum, or of exponentials of what is scaled up: then it is right as far as
            float32 knows `y_pred`.
    """

    loss: type
    oracle: Callable
    y_true: np.ndarray
    y_pred: np.ndarray
    arguments: dict = dataclasses.field(default_factory=dict)
    refused: dict = dataclasses.field(default_factory=dict)
    required: dict = dataclasses.field(default_factory=dict)
    wrapped: bool = False
    perfect: Callable = lambda y_true: y_true
    pairwise: bool = False
    steep: bool = False
    label: str = ""
    fixed: tuple = ()
    repeats: bool = True
    of_batch: bool = False

    # A loss with parts is no `cl.losses.Loss`, and does not have all of these attributes.

    @property
    def name(self):
        return f"{self.loss.__name__}-{self.label}" if self.label else self.loss.__name__

    @property
    def is_one_number(self):
        """Whether, with `arguments`, every value is one number of the whole batch.

        Then the weights of samples act inside it, and are not multiplied in again.
        """
        return self.repeats and self.is_over_batch

    @property
    def is_over_batch(self):
        return self.of_batch or getattr(self.make(**self.arguments), "over", None) == "batch"

    @property
    def couples_batch(self):
        return self.is_over_batch or getattr(self._innermost, "couples_batch", False)

    @property
    def same_shape(self):
        return getattr(self._innermost, "same_shape", True)

    @property
    def _innermost(self):
        loss = self.make()
        return loss.innermost_loss() if isinstance(loss, cl.wrappers.Wrapper) else loss

    def make(self, **kwargs):
        """The loss with its required arguments and `kwargs`."""
        return self.loss(**{**self.required, **kwargs})

    def values(self, y_true=None, y_pred=None, **kwargs):
        """The oracle's values and gradient, of this batch or another."""
        y_true = self.y_true if y_true is None else y_true
        y_pred = self.y_pred if y_pred is None else y_pred
        return self.oracle(y_true, y_pred, **{**self.required, **kwargs})

    def rounding(self, **kwargs):
        """How much the oracle's gradient changes if `y_pred` changes by four float32 roundings."""
        if not self.steep:
            return 0.0
        _, slope = self.values(**kwargs)
        scale = 4 * np.finfo("float32").eps * np.sqrt(np.mean(np.float64(self.y_pred) ** 2))
        noise = scale * np.random.default_rng(0).normal(size=self.y_pred.shape)
        _, moved = self.values(y_pred=self.y_pred + noise, **kwargs)
        return np.abs(moved - slope).max()


def normal(*shape, seed):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


NOT_A_NUMBER = [float("nan"), float("inf"), True, "1", None]
