"""The `Backend` of TensorFlow: several replicas that each see a part of the batch, and tapes."""

import contextlib
import functools
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Self, TypeVar

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from combined_losses._backend import (
    keras_private,
    plain,
    reverse,
    tensorflow_memory,
    tensorflow_replicas,
)
from combined_losses._backend.arrays import Partial, Rows, Tensor
from combined_losses._backend.capture import Capture, Reader, columns, joined
from combined_losses._backend.factors import Columns, Product
from combined_losses._backend.protocol import GradientsOf, HasTotal

_T = TypeVar("_T")
_Function = TypeVar("_Function", bound=Callable[..., Any])
_Batch = TypeVar("_Batch")
_Evaluation = TypeVar("_Evaluation", bound=HasTotal)

around_step = plain.around_step
forgetting = tensorflow_memory.forgetting
nth_largest = plain.nth_largest
as_one_replica = tensorflow_replicas.as_one_replica
global_concat = tensorflow_replicas.global_concat
global_max = tensorflow_replicas.global_max
global_offset = tensorflow_replicas.global_offset
global_sum = tensorflow_replicas.global_sum
is_in_scope = tensorflow_replicas.is_in_scope
strategy = tensorflow_replicas.strategy
replica_count = tensorflow_replicas.replica_count
begin_together = plain.begin_together
check_same = tensorflow_replicas.check_same
choose_ranks = plain.choose_ranks
whole = plain.whole
recorded = plain.recorded
complete_state = plain.complete_state
entries = plain.entries
entropy_of_ids = plain.entropy_of_ids
is_compiling = plain.is_compiling
is_threaded = plain.is_threaded
is_traced = plain.is_traced
in_float64 = plain.in_float64
is_hard = plain.is_hard
lies_within = plain.lies_within
on_host = plain.on_host
binary_entropy = plain.binary_entropy
halved = plain.halved
lesser = plain.lesser
least_of_three = plain.least_of_three
greatest_of_three = plain.greatest_of_three
mean = plain.mean
ordered_as = plain.ordered_as
order_down = plain.order_down
restore_state = plain.restore_state
result_in = plain.result_in
spatial_product = plain.spatial_product
spatial_sum = plain.spatial_sum


def whole_numbers_from_host(
    function: Callable[..., Any], arrays: Sequence[Tensor], shape: tuple[Any, ...]
) -> Tensor:
    fixed = [tf.stop_gradient(array) for array in arrays]
    found = tf.numpy_function(function, fixed, tf.int32, stateful=False)
    found.set_shape(shape)
    return found


def as_written(function: _Function) -> _Function:
    # In a `tf.function` AutoGraph would first rewrite all that is called, which takes seconds.
    # Keras exempts its own losses likewise.
    exempted: _Function = tf.autograph.experimental.do_not_convert(function)
    return exempted


def is_eager(variables: Iterable[keras.Variable]) -> bool:
    eager: bool = tf.executing_eagerly()
    return eager


def read_variable(value: Tensor) -> Tensor:
    # A `tf.Variable` lacks attributes that Keras expects of tensors.
    return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) else value


def jacobian(
    function: Callable[[list[Tensor]], list[Tensor]], points: list[Tensor]
) -> list[list[Tensor]]:
    return reverse.jacobian(function, _distinct(points), _recording)


def partials(
    function: Callable[[list[Tensor]], list[Tensor]],
    points: list[Tensor],
    wanted: Collection[Partial],
) -> dict[Partial, list[Tensor]]:
    return reverse.partials(function, _distinct(points), wanted, _recording)


def _distinct(points: list[Tensor]) -> list[Tensor]:
    # A tape knows a tensor by its number: one that is given twice would have both gradients.
    return [tf.identity(point) for point in points]


@contextlib.contextmanager
def _recording(points: list[Tensor]) -> Iterator[reverse.Slopes]:
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        yield functools.partial(tape.gradient, unconnected_gradients=tf.UnconnectedGradients.ZERO)


def finite_gradient(tensor: Tensor) -> Tensor:
    # Keras's cross-entropies compute with the logits behind probabilities, where Keras finds them:
    # the gradient then goes to the logits, and has to be stopped there.
    logits = keras_private.logits_before(tensor)
    if logits is not None:
        probabilities = _with_finite_gradient(tensor)
        keras_private.keep_logits(probabilities, _with_finite_gradient(logits))
        return probabilities
    made_by = _activation_before(tensor)
    if made_by is not None:
        activation = tf.nn.softmax if made_by == "Softmax" else tf.sigmoid
        return activation(_with_finite_gradient(tensor.op.inputs[0]))
    return _with_finite_gradient(tensor)


def _activation_before(tensor: Tensor) -> str | None:
    return keras_private.activation_before(tensor) if tf.is_symbolic_tensor(tensor) else None


def _with_finite_gradient(tensor: Tensor) -> Tensor:
    return tf.custom_gradient(_identity_and_gradient)(tensor)


def _identity_and_gradient(tensor: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    def backward(upstream: Tensor) -> Tensor:
        upstream = tf.convert_to_tensor(upstream)
        is_finite = tf.reduce_all(tf.math.is_finite(upstream))
        if replica_count() > 1:
            is_finite = tf.equal(global_sum(tf.cast(is_finite, "float32")), float(replica_count()))
        return tf.where(is_finite, upstream, tf.zeros_like(upstream))

    return tf.identity(tensor), backward


def evaluate_with_rows(
    points: list[Tensor],
    view: Callable[[list[Tensor]], _Batch],
    parts: Sequence[Callable[[_Batch], _Evaluation]],
    variables: Sequence[keras.Variable],
) -> tuple[list[_Evaluation], Rows]:
    def evaluated(points: list[Tensor]) -> tuple[list[Tensor], list[_Evaluation]]:
        batch = view(points)
        evaluations = [part(batch) for part in parts]
        return [each.total for each in evaluations], evaluations

    _, evaluations, rows = _rows_of(evaluated, points, variables)
    return evaluations, rows


def compiled(function: Callable[..., _T], variables: Sequence[keras.Variable]) -> Callable[..., _T]:
    # A new function each time: TensorFlow keeps what it has compiled by the function.
    def own(*args: Any) -> _T:
        return function(*args)

    graph: Callable[..., _T] = tf.function(own, autograph=False, reduce_retracing=True)
    return graph


def rows_of(
    function: Callable[[list[Tensor]], tuple[list[Tensor], _T]], points: list[Tensor]
) -> tuple[list[Tensor], _T, Rows]:
    return _rows_of(function, points, [])


def _rows_of(
    function: Callable[[list[Tensor]], tuple[list[Tensor], _T]],
    points: list[Tensor],
    variables: Sequence[keras.Variable],
) -> tuple[list[Tensor], _T, Rows]:
    """`rows_of` a function that may assign variables."""
    has_logits = any(map(_has_logits, points))
    # The values that the variables have before the function assigns any of them.
    before = [(v, tf.convert_to_tensor(v.value)) for v in variables] if has_logits else []
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        values, more = function(points)
    if has_logits:
        # Keras's cross-entropies have computed with the logits, so that no gradient has reached the
        # points. Compute once more, at copies of the points, which have no logits behind them.
        points = [tf.identity(point) for point in points]
        scope = keras.StatelessScope(state_mapping=before)
        with scope, tf.GradientTape(persistent=True) as tape:
            tape.watch(points)
            reached, _ = function(points)
    else:
        reached = values
    return values, more, [_gradients(tape, value, points) for value in reached]


def _has_logits(tensor: Tensor) -> bool:
    """Whether Keras finds the logits behind probabilities."""
    return keras_private.logits_before(tensor) is not None or _activation_before(tensor) is not None


def _gradients(
    tape: Any, value: Tensor, points: Sequence[Any], direction: Tensor | None = None
) -> list[Tensor]:
    """The gradients that a `tf.GradientTape` has of a value, 0 where there is none."""
    found = tape.gradient(value, points, direction)
    return [
        tf.zeros_like(tf.convert_to_tensor(point)) if row is None else tf.convert_to_tensor(row)
        for point, row in zip(points, found, strict=True)
    ]


def gramian(rows: Sequence[Tensor], scales: Tensor) -> Tensor:
    factors = tf.unstack(1 / scales, len(rows))
    scaled = tf.stack([row * factor for row, factor in zip(rows, factors, strict=True)])
    # On a GPU `matmul` keeps three digits: multiply and add up instead.
    if tf.config.list_physical_devices("GPU"):
        return tf.stack([tf.reduce_sum(scaled * row, axis=1) for row in tf.unstack(scaled)])
    return tf.matmul(scaled, scaled, transpose_b=True)


def largest(rows: Sequence[Tensor]) -> Tensor:
    # The larger of both ends of each row, which needs no array of magnitudes.
    magnitudes = [tf.maximum(tf.reduce_max(row), -tf.reduce_min(row)) for row in rows]
    return tf.maximum(tf.stack(magnitudes), 0.0)  # that of an empty row is -inf


def blurred(images: Tensor, window: NDArray[np.float64], upright: bool = False) -> Tensor:
    if images.shape[0] == 0:
        # TensorFlow 2.21: the depthwise convolution of no images, compiled, has the shape of its
        # input, and its gradient fails. A cut has no images either, and the right shape.
        rim = len(window) - 1
        return images[:, rim:] if upright else images[:, rim:, rim:]
    return plain.blurred(images, window, upright)


def products(a: Tensor, b: Tensor) -> Tensor:
    # On a GPU `matmul` keeps three digits of float32.
    if tf.config.list_physical_devices("GPU"):
        wide = tf.matmul(tf.cast(a, "float64"), tf.cast(b, "float64"), transpose_b=True)
        return tf.cast(wide, a.dtype)
    return tf.matmul(a, b, transpose_b=True)


def spectrum(planes: Tensor) -> Tensor:
    found = tf.signal.rfft2d(planes)
    return tf.square(tf.math.real(found)) + tf.square(tf.math.imag(found))


def requiring(tensor: Tensor, condition: Tensor, message: str) -> Tensor:
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        # XLA drops assertions, but refuses an array of negative length: its error shows the name.
        name = re.sub(r"\W+", "_", message.partition(". ")[0]).strip("_")[:200]
        nothing = tf.fill([tf.where(condition, 0, -1)], 0.0, name=name)
    with tf.control_dependencies([nothing]):
        return tf.identity(tensor)


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return tf.custom_gradient(_squared_distances)(a, b)


# The differences of all rows are kept for this many features at a time.
_FEATURES = 16


def _squared_distances(
    a: Tensor, b: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, Tensor]]]:
    a, b = tf.stop_gradient(a), tf.stop_gradient(b)  # or a tape would keep all differences
    starts = range(0, a.shape[1] or 0, _FEATURES)
    parts = [slice(i, i + _FEATURES) for i in starts] or [slice(None)]

    def differences(part: slice) -> Tensor:
        return a[:, None, part] - b[None, :, part]

    def backward(upstream: Tensor) -> tuple[Tensor, Tensor]:
        of_a, of_b = [], []
        for part in parts:
            slope = 2 * upstream[:, :, None] * differences(part)
            of_a.append(tf.reduce_sum(slope, axis=1))
            of_b.append(-tf.reduce_sum(slope, axis=0))
        return tf.concat(of_a, axis=-1), tf.concat(of_b, axis=-1)

    squares = [tf.reduce_sum(tf.square(differences(part)), axis=-1) for part in parts]
    return tf.add_n(squares), backward


def places_after(rows: Tensor, values: Tensor) -> Tensor:
    return tf.searchsorted(rows, values, side="right")


def combine(weights: Tensor, rows: Sequence[Tensor]) -> Tensor:
    factors = tf.unstack(tf.stop_gradient(weights), len(rows))
    return tf.add_n([factor * row for factor, row in zip(factors, rows, strict=True)])


def either(condition: Tensor, yes: Callable[[], _T], no: Callable[[], _T]) -> _T:
    chosen: _T = tf.cond(condition, yes, no)
    return chosen


def attach(value: Tensor, points: Sequence[keras.Variable], gradients: GradientsOf) -> Tensor:
    def attached(*tensors: Tensor) -> tuple[Tensor, GradientsOf]:
        return tf.identity(value), gradients

    tensors = (tf.convert_to_tensor(point.value) for point in points)
    return tf.custom_gradient(attached)(*tensors)


def capture(model: keras.Model, arguments: tuple[Any, ...]) -> Capture:
    return _Capture(model)


class _Capture(Capture):
    """Keeps a tape of the step."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(model)
        self._tape = tf.GradientTape(persistent=True)

    def __enter__(self) -> Self:
        self._tape.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._tape.__exit__(*error)
        del self._tape

    def watch(self, name: str, tensor: Tensor) -> Tensor:
        if _has_logits(tensor):
            tensor = tf.identity(tensor)
        self._tape.watch(tensor)
        self._watched.setdefault(name, []).append(tensor)
        return tensor

    def watch_product(self, product: Product) -> Tensor:
        # A constant, or a variable, has no place in the graph.
        known = tf.is_symbolic_tensor(product.x) and tf.is_symbolic_tensor(product.z)
        return super().watch_product(product) if known else product.z

    def rows(
        self, rule: Reader, values: list[Tensor], points: Sequence[Any], scale: Tensor
    ) -> Columns:
        factored, has_loops = {}, False
        if not tf.executing_eagerly():  # else there is no graph that tells what kernels are used by
            factored = self._factored(rule, len(values), points)
            factored, has_loops = _not_used_elsewhere(factored, points, values)
        products = [product for each in factored.values() for product in each]
        others = [index for index in range(len(points)) if index not in factored]
        at = [*(points[index] for index in others), *(product.z for product in products)]
        # Losses of several dtypes have values of several.
        values = [tf.cast(value, "float32") * scale for value in values]
        together = tf.stack(values)
        with self._tape.stop_recording():
            # With a further axis the passes through small batches take half the time; where
            # gradients by kernels are computed on the way, they take longer. TensorFlow 2.21 cannot
            # give that axis to `keras.ops.scan`.
            if factored and not has_loops:
                rows = self._together(together, at)
            else:
                rows = [_gradients(self._tape, value, at) for value in values]
            flat = [each[: len(others)] for each in rows]
            result: dict[int, Any] = dict(zip(others, columns(flat, scale), strict=True))
            slopes = (
                tf.stack([each[place] for each in rows]) / scale
                for place in range(len(others), len(at))
            )
            for index, each in factored.items():
                result[index] = joined(each, [next(slopes) for _ in each])
        return [result[index] for index in range(len(points))]

    def _together(self, values: Tensor, at: Sequence[Any]) -> Rows:
        """The gradients of `values` `(k,)`, by one pass through the network with a further axis."""

        def pulled_back(direction: Tensor) -> list[Tensor]:
            return _gradients(self._tape, values, at, direction)

        k = values.shape[0]
        found = [tf.unstack(each, k) for each in tf.vectorized_map(pulled_back, tf.eye(k))]
        return [list(row) for row in zip(*found, strict=True)]


# Operations that hold a graph, in which there may be a loop.
_MAY_LOOP = {"While", "StatelessWhile", "PartitionedCall", "StatefulPartitionedCall"}


def _not_used_elsewhere(
    factored: dict[int, list[Product]], points: Sequence[Any], values: Sequence[Tensor]
) -> tuple[dict[int, list[Product]], bool]:
    """Those of the products by whose kernels the values have no gradient but through them.

    The second result is whether the values may depend on loops.

    We go back through the graph of the values. At each product we go on with its inputs alone: a
    kernel that we meet nevertheless is used for something else.
    """
    graph = values[0].graph
    # A layer called inside a loop, or in a branch, has its product in a graph inside this one.
    factored = {i: each for i, each in factored.items() if all(p.z.graph is graph for p in each)}
    products = {p.z.op.name: p for each in factored.values() for p in each}
    met: set[str] = set()
    ahead = [value.op for value in values]
    used: set[str] = set()
    has_loops = False
    while ahead:
        op = ahead.pop()
        if op.name in met:
            continue
        met.add(op.name)
        has_loops = has_loops or op.type in _MAY_LOOP
        product = products.get(op.name)
        inputs = op.inputs if product is None else [product.x]
        used.update(each.name for each in inputs)
        ahead.extend(each.op for each in inputs)
    kept = {
        index: each
        for index, each in factored.items()
        if graph.capture(points[index].value.handle).name not in used
    }
    return kept, has_loops
