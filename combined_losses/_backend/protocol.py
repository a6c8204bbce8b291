"""The functions that differ between the frameworks: what each of them must offer.

The modules `tensorflow`, `jax` and `torch` beside this file are such a `Backend` each; mypy checks
their functions against this class. A function that a framework has nothing special for comes from
`plain.py`. What a function does is said here, once; the modules say how.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar

import keras
import numpy as np
from numpy.typing import NDArray

from combined_losses._backend.arrays import Once, Partial, Rows, State, Strategy, Tensor
from combined_losses._backend.capture import Capture


class HasTotal(Protocol):
    """What a part of a loss gives: an `Evaluation`."""

    @property
    def total(self) -> Tensor: ...


GradientsOf: TypeAlias = Callable[[Tensor], list[Tensor]]

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Batch = TypeVar("_Batch")
_Evaluation = TypeVar("_Evaluation", bound=HasTotal)


class Backend(Protocol):
    """A framework."""

    # Gradients.

    def jacobian(
        self, function: Callable[[list[Tensor]], list[Tensor]], points: list[Tensor]
    ) -> list[list[Tensor]]:
        """The first derivatives of each output at each point, themselves differentiable.

        Args:
            function: takes points and returns outputs `(rows, n)`. A row of an output depends on
                one row of each point.
            points: arrays `(rows, columns)`.

        Returns:
            For each output a list of arrays `(rows, n, columns)`, one for each point.
        """

    def partials(
        self,
        function: Callable[[list[Tensor]], list[Tensor]],
        points: list[Tensor],
        wanted: Collection[Partial],
    ) -> dict[Partial, list[Tensor]]:
        """Partial derivatives of each output at points, themselves differentiable.

        Args:
            function: as for `jacobian`.
            points: as for `jacobian`.
            wanted: the derivatives. Those that begin with the same columns share computations.

        Returns:
            For each derivative a list of arrays `(rows, n)`, one for each output.
        """

    def rows_of(
        self, function: Callable[[list[Tensor]], tuple[list[Tensor], _T]], points: list[Tensor]
    ) -> tuple[list[Tensor], _T, Rows]:
        """Calls a function of points, and takes the gradient of each of its values at each point.

        Args:
            function: returns k scalars, and anything else besides.
            points: where gradients are taken.

        Returns:
            What the function has returned, and the gradients.
        """

    def evaluate_with_rows(
        self,
        points: list[Tensor],
        view: Callable[[list[Tensor]], _Batch],
        parts: Sequence[Callable[[_Batch], _Evaluation]],
        variables: Sequence[keras.Variable],
    ) -> tuple[list[_Evaluation], Rows]:
        """Evaluates `parts` on `view(points)`, with the gradient of each total at each point.

        Args:
            points: where gradients are taken.
            view: makes a batch of the points.
            parts: functions of the batch, one for each component.
            variables: those that the parts may assign.
        """

    def finite_gradient(self, tensor: Tensor) -> Tensor:
        """`tensor`; its gradient is 0 if an entry of that, in any replica, is not finite."""

    def attach(
        self, value: Tensor, points: Sequence[keras.Variable], gradients: GradientsOf
    ) -> Tensor:
        """`value`, but with the gradients that a function gives in place of its own at variables.

        The function is given the gradient by the value, a factor of its gradients.
        """

    def capture(self, model: keras.Model, arguments: tuple[Any, ...]) -> Capture:
        """A context around a training step of `model`, given the arguments of `train_step`."""

    # Arithmetic.

    def gramian(self, rows: Sequence[Tensor], scales: Tensor) -> Tensor:
        """The products of k flat gradients, each divided by its scale, a power of two: `(k, k)`."""

    def in_float64(self) -> contextlib.AbstractContextManager[None]:
        """In the block tensors may be in float64: on JAX they are otherwise in float32."""

    def largest(self, rows: Sequence[Tensor]) -> Tensor:
        """The largest magnitude in each of k flat gradients, `(k,)`."""

    def combine(self, weights: Tensor, rows: Sequence[Tensor]) -> Tensor:
        """The sum of k flat gradients with weights `(k,)`."""

    def products(self, a: Tensor, b: Tensor) -> Tensor:
        """The products of the rows of `a` with those of `b`, each to all digits of its dtype."""

    def squared_distances(self, a: Tensor, b: Tensor) -> Tensor:
        """The squared distances of the rows of `a` to those of `b`, from their differences."""

    def order_down(self, rows: Tensor) -> Tensor:
        """The places of the numbers of each row, that of the largest first; in ties any order."""

    def nth_largest(self, rows: Tensor, most: Any, places: Tensor | None) -> Tensor:
        """The number at a place of each row, `(n, 1)`, counted from 1 for the largest one.

        Args:
            rows: `(n, m)`, float32, without a gradient.
            most: the last place in question, at most m.
            places: `(n, 1)`, int32, from 1 to `most`; None: `most` in each row.
        """

    def places_after(self, rows: Tensor, values: Tensor) -> Tensor:
        """For each of the `values` of a row the place of the first greater one in a sorted row.

        Args:
            rows: `(n, m)`, each row sorted.
            values: `(n, k)`.

        Returns:
            `(n, k)`, from 0 to m: m where no number of the row is greater.
        """

    def binary_entropy(self, logit: Tensor, minus_label: Tensor) -> Tensor:
        """`softplus(logit) + minus_label * logit`; its slope is `sigmoid(logit) + minus_label`.

        That is the binary cross-entropy. For labels of at most 1/2 nothing cancels: `label * logit`
        is at most half of the softplus.
        """

    def entropy_of_ids(self, logits: Tensor, ids: Tensor, smoothing: float) -> Tensor:
        """Minus `(1 - s) log(p_id) + s mean_c log(p_c)`, p the softmax over the last axis.

        Args:
            logits: `(..., C)`.
            ids: `(..., 1)`, int32.
            smoothing: s.

        Returns:
            `(..., 1)`.
        """

    def lesser(self, a: Tensor, b: Tensor) -> Tensor:
        """The lesser of two numbers at each place; where they are equal, each has half the slope.

        Where a number is `nan`, its slope is any finite share.
        """

    def least_of_three(self, x: Tensor, axis: int) -> Tensor:
        """The least of each number and its neighbours along an axis; at the ends, of two.

        The lesser of two pairs: of the number and the one before, and of it and the one after.
        """

    def greatest_of_three(self, x: Tensor, axis: int) -> Tensor:
        """As `least_of_three`, with the greater numbers."""

    def blurred(self, images: Tensor, window: NDArray[np.float64], upright: bool = False) -> Tensor:
        """Rows and columns of `(batch, height, width, channels)` under a symmetric window.

        At all places where the window lies inside. If `upright`, columns alone.
        """

    def halved(self, images: Tensor, channels_first: bool) -> Tensor:
        """Means of 2 x 2 pixels; along an odd side the last window is one pixel wide."""

    def spectrum(self, planes: Tensor) -> Tensor:
        """The squared magnitudes of the Fourier transforms of planes `(..., height, width)`.

        Of the columns the first `width // 2 + 1`: the others mirror them.
        """

    def mean(self, x: Tensor, axes: tuple[int, ...] | None) -> Tensor:
        """The mean over some axes, or over all, of an array of known sizes that is not empty."""

    def ordered_as(self, other: Tensor, x: Tensor, once: Once | None) -> Tensor:
        """`x`, in memory in the order of `other`, of the same shape, where that saves time."""

    def spatial_sum(self, x: Tensor) -> Tensor:
        """The sums over all axes but the first and the last: `(batch, channels)`."""

    def spatial_product(self, a: Tensor, b: Tensor) -> Tensor:
        """`spatial_sum` of `a * b`; where `a` is 0 that product counts as 0."""

    def entries(self, x: Tensor, number: int) -> list[Tensor]:
        """The `number` entries of the last axis, each an array of its own."""

    def on_host(self, function: Callable[..., Any], arrays: Sequence[Tensor]) -> Tensor | None:
        """What a function of NumPy arrays in float64 gives for small tensors, in float32.

        None where it is not worth it: where the framework compiles, or the numbers are not known.
        Also None where the function raises an `ArithmeticError` or a `LinAlgError`.
        """

    def whole_numbers_from_host(
        self, function: Callable[..., Any], arrays: Sequence[Tensor], shape: tuple[Any, ...]
    ) -> Tensor:
        """What a function of NumPy arrays gives, whole numbers of a shape, in int32.

        Also in a compiled step, which waits for it. No gradient goes through. TensorFlow's XLA
        cannot call it.

        Args:
            function: takes NumPy arrays and returns one, of the dtype int32.
            arrays: what it is given.
            shape: that of its result; on TensorFlow sizes may be None.
        """

    # Conditions and checks.

    def either(self, condition: Tensor, yes: Callable[[], _T], no: Callable[[], _T]) -> _T:
        """What one of two functions gives; only that one is computed."""

    def requiring(self, tensor: Tensor, condition: Tensor, message: str) -> Tensor:
        """`tensor`; where it is computed, an error with `message` unless the condition holds."""

    def lies_within(self, x: Tensor, low: float, high: float) -> bool:
        """Whether all numbers are known to lie within bounds; False where no number is known."""

    def is_hard(self, labels: Tensor) -> bool:
        """Whether all labels are known to be 0 or 1, and no gradient is asked for by them."""

    # Compiling, and what can be known meanwhile.

    def forgetting(self) -> contextlib.AbstractContextManager[None]:
        """At the end of the block the framework forgets what it would keep of functions for ever.

        What was compiled in the block must not be used any more.
        """

    def as_written(self, function: _Function) -> _Function:
        """`function`, which nobody rewrites when a function that calls it is compiled."""

    def compiled(
        self, function: Callable[..., _T], variables: Sequence[keras.Variable]
    ) -> Callable[..., _T]:
        """A function of tensors, compiled, that reads variables as they are at every call."""

    def is_compiling(self) -> bool:
        """Whether a function is being compiled that will never read the state outside it again."""

    def is_threaded(self, variable: keras.Variable) -> bool:
        """Whether a function that is being compiled is given the value of a variable."""

    def is_traced(self, values: object) -> bool:
        """Whether tensors, in any structure, belong to a trace: none can be kept beyond it."""

    def is_eager(self, variables: Iterable[keras.Variable]) -> bool:
        """Whether the values of variables can be looked at."""

    def read_variable(self, value: Tensor) -> Tensor:
        """The tensor of a variable of the framework; a tensor as it is."""

    # Replicas, which each see a part of the batch.

    def replica_count(self) -> int:
        """The number of replicas that compute this batch together; 1 outside of a replica."""

    def as_one_replica(self) -> contextlib.AbstractContextManager[Any]:
        """In the block Keras and this package compute as if there were one replica."""

    def strategy(self) -> Strategy:
        """The strategy whose replicas compute this batch together; None outside of a replica."""

    def is_in_scope(self, strategy: Strategy, variable: keras.Variable) -> bool:
        """Whether a variable was made inside the scope of a strategy, or there is no strategy."""

    def global_sum(self, value: Tensor) -> Tensor:
        """The sum over all replicas of a tensor, or of each in a list.

        Its gradient is that of all of them together.
        """

    def global_max(self, value: Tensor) -> Tensor:
        """The largest of `value` over all replicas."""

    def global_concat(self, value: Tensor) -> Tensor:
        """The rows of `value` of all replicas; the gradient of its own is that of all of them."""

    def global_offset(self, size: Tensor) -> Tensor:
        """How many rows the replicas before this one have, where this one has `size`."""

    def choose_ranks(self, group: Any) -> Any:
        """Chooses the processes of torch that compute a batch together: see `cl.distributed`.

        Returns the choice before.
        """

    def whole(self, loss: Tensor) -> Tensor:
        """What a loss gives to a user's loop, of this replica's contribution to the whole batch.

        On torch it is the loss of the whole batch, with the gradient that
        `DistributedDataParallel` averages; elsewhere the contribution.
        """

    def recorded(self, record: Tensor, counts: Tensor, all_counts: Tensor) -> tuple[Tensor, Tensor]:
        """What a replica adds to its variables of a record, and of the counts of its rows.

        On torch, where nobody adds up the variables of the replicas when they are read, the record
        and the counts of all replicas; elsewhere its own. `all_counts` are the counts of all.
        """

    def check_same(self, loss: Any, learned: Callable[[], Sequence[keras.Variable]]) -> None:
        """Called by a loss that a loop calls, where several replicas compute this batch together.

        Raises in all processes of torch, and of TensorFlow, unless all call the same loss. On torch
        the gradients of what the loss has learned become those of the whole batch.
        """

    def around_step(
        self, model: keras.Model, is_test: bool
    ) -> contextlib.AbstractContextManager[Any]:
        """The block is a step of a tracked model, which sees to it that replicas act together."""

    def begin_together(self, model: keras.Model, describe: Callable[[], str]) -> None:
        """Called when a `fit` begins; raises in all processes unless they train the same.

        All processes of torch get the variables of the first one.
        """

    # The state that a step on JAX is given and returns.

    def restore_state(self, model: keras.Model, state: State) -> None:
        """Gives variables back, after a step that failed, the values that the step was given."""

    def complete_state(self, given: State, state: State, tracker: keras.Metric) -> State:
        """The state that a step returns, with the variables of `tracker` where they are missing.

        `given` is the state that the step was given.
        """

    def result_in(self, states: Sequence[State], tracker: keras.Metric) -> Tensor:
        """The result of a metric after a step that returned `states`: one on JAX, else none."""
