"""The `Backend` of JAX: it compiles a step once, and then reads no state outside it any more."""

import contextlib
import functools
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import jax
import keras

from combined_losses._backend import forward, jax_processes, keras_private, plain
from combined_losses._backend.arrays import Partial, Rows, State, Tensor
from combined_losses._backend.capture import Capture, Reader, columns, joined
from combined_losses._backend.factors import Columns, Product
from combined_losses._backend.probing import probed, probing
from combined_losses._backend.protocol import GradientsOf, HasTotal

_T = TypeVar("_T")
_Batch = TypeVar("_Batch")
_Evaluation = TypeVar("_Evaluation", bound=HasTotal)

around_step = plain.around_step
begin_together = jax_processes.begin_together
check_same = plain.check_same
choose_ranks = plain.choose_ranks
whole = plain.whole
recorded = plain.recorded
as_one_replica = plain.as_one_replica
as_written = plain.as_written
forgetting = plain.forgetting
global_concat = plain.global_concat
global_max = plain.global_max
global_offset = plain.global_offset
global_sum = plain.global_sum
is_in_scope = plain.is_in_scope
strategy = plain.strategy
is_hard = plain.is_hard
lies_within = plain.lies_within
on_host = plain.on_host
binary_entropy = plain.binary_entropy
blurred = plain.blurred
halved = plain.halved
lesser = plain.lesser
least_of_three = plain.least_of_three
greatest_of_three = plain.greatest_of_three
mean = plain.mean
ordered_as = plain.ordered_as
read_variable = plain.read_variable
replica_count = plain.replica_count
requiring = plain.requiring


def is_compiling() -> bool:
    # While a gradient alone is taken, as in each eager call, this array is an ordinary one.
    return isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def jacobian(
    function: Callable[[list[Tensor]], list[Tensor]], points: list[Tensor]
) -> list[list[Tensor]]:
    return forward.jacobian(function, points, jax)


def partials(
    function: Callable[[list[Tensor]], list[Tensor]],
    points: list[Tensor],
    wanted: Collection[Partial],
) -> dict[Partial, list[Tensor]]:
    return forward.partials(function, points, wanted, jax)


def whole_numbers_from_host(
    function: Callable[..., Any], arrays: Sequence[Tensor], shape: tuple[Any, ...]
) -> Tensor:
    result = jax.ShapeDtypeStruct(shape, "int32")
    fixed = [jax.lax.stop_gradient(array) for array in arrays]
    return jax.pure_callback(function, result, *fixed, vmap_method="sequential")


def finite_gradient(tensor: Tensor) -> Tensor:
    return _with_finite_gradient(tensor)


def _finite_backward(nothing: None, upstream: Tensor) -> tuple[Tensor]:
    is_finite = jax.numpy.isfinite(upstream).all()
    return (jax.numpy.where(is_finite, upstream, jax.numpy.zeros_like(upstream)),)


_with_finite_gradient = jax.custom_vjp(lambda tensor: tensor)
_with_finite_gradient.defvjp(lambda tensor: (tensor, None), _finite_backward)


def restore_state(model: keras.Model, state: State) -> None:
    # Keras takes the values out of the variables before the first step, and puts those that a step
    # returns into them. A first step that fails, for example by targets of a wrong shape, returns
    # none.
    given = keras_private.read_state(state)
    pairs = [
        (model.trainable_variables, given.trainable),
        (model.non_trainable_variables, given.non_trainable),
        (model.metrics_variables, given.metrics),
    ]
    if given.optimizer is not None:
        pairs.append((model.optimizer.variables, given.optimizer))
    for variables, values in pairs:
        for variable, value in zip(variables, values or (), strict=False):
            if not value.is_deleted():
                variable.assign(value)


def is_threaded(variable: keras.Variable) -> bool:
    return isinstance(variable.value, jax.core.Tracer)


def is_eager(variables: Iterable[keras.Variable]) -> bool:
    return not is_compiling() and not any(map(is_threaded, variables))


def is_traced(values: object) -> bool:
    return is_compiling() or any(isinstance(v, jax.core.Tracer) for v in jax.tree.leaves(values))


def complete_state(given: State, state: State, tracker: keras.Metric) -> State:
    before = keras_private.read_state(given).metrics
    metrics = keras_private.read_state(state).metrics
    missing = len(before) - len(metrics)
    if missing == len(tracker.variables):
        metrics = [*metrics, *before[-missing:]]
    return keras_private.with_metrics(state, metrics)


def result_in(states: Sequence[State], tracker: keras.Metric) -> Tensor:
    # The variables of the tracker are the last of those that a step returns.
    metrics = keras_private.read_state(states[0]).metrics
    return tracker.stateless_result(metrics[-len(tracker.variables) :])


def evaluate_with_rows(
    points: list[Tensor],
    view: Callable[[list[Tensor]], _Batch],
    parts: Sequence[Callable[[_Batch], _Evaluation]],
    variables: Sequence[keras.Variable],
) -> tuple[list[_Evaluation], Rows]:
    # The parts are computed twice here, and once by what the compiler makes of it: it joins equal
    # computations. They are equal only if both begin with the same values of the variables.
    before = [(v, jax.lax.stop_gradient(v.value)) for v in variables]
    batch = view(points)
    evaluations = [part(batch) for part in parts]
    points = jax.lax.stop_gradient(points)

    def gradients(part: Callable[[_Batch], _Evaluation]) -> list[Tensor]:
        # What is assigned in the scope is lost; the evaluation above has assigned the same.
        apart = keras.StatelessScope(state_mapping=before)
        with apart if before else contextlib.nullcontext():
            found: list[Tensor] = jax.grad(lambda points: part(view(points)).total)(points)
        return found

    return evaluations, [gradients(part) for part in parts]


def rows_of(
    function: Callable[[list[Tensor]], tuple[list[Tensor], _T]], points: list[Tensor]
) -> tuple[list[Tensor], _T, Rows]:
    def vector(points: list[Tensor]) -> tuple[Tensor, tuple[list[Tensor], _T]]:
        values, more = function(points)
        return jax.numpy.stack(values), (values, more)

    _, pullback, (values, more) = jax.vjp(vector, points, has_aux=True)
    rows = [pullback(one)[0] for one in jax.numpy.eye(len(values), dtype="float32")]
    if is_compiling():
        return values, more, rows
    finite = [all(bool(jax.numpy.isfinite(row).all()) for row in each) for each in rows]
    if not all(finite):
        # The gradient of one value may be NaN because of another value: 0 * NaN is NaN. Take those
        # that are not finite once more, each alone.
        rows = [
            each if fine else jax.grad(lambda points, i=i: function(points)[0][i])(points)
            for i, (each, fine) in enumerate(zip(rows, finite, strict=True))
        ]
    return values, more, rows


def compiled(function: Callable[..., _T], variables: Sequence[keras.Variable]) -> Callable[..., _T]:
    def with_values(values: list[Tensor], args: tuple[Any, ...]) -> _T:
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*args)

    run = jax.jit(with_values)

    def run_now(*args: Any) -> _T:
        result: _T = run([v.value for v in variables], args)
        return result

    return run_now


# This many numbers of each gradient are multiplied at a time, and stay in the cache of the CPU. One
# product of all takes nine times as long, because XLA reorders the numbers first.
_CHUNK = 4096


def gramian(rows: Sequence[Tensor], scales: Tensor) -> Tensor:
    size, factors = rows[0].size, 1 / scales[:, None]
    whole = size // _CHUNK * _CHUNK

    def add(index: Tensor, total: Tensor) -> Tensor:
        start = index * _CHUNK
        parts = [jax.lax.dynamic_slice(row, (start,), (_CHUNK,)) for row in rows]
        return total + _products(parts, factors)

    rest = _products([row[whole:] for row in rows], factors)
    return jax.lax.fori_loop(0, whole // _CHUNK, add, rest) if whole else rest


def _products(rows: Sequence[Tensor], factors: Tensor) -> Tensor:
    scaled = jax.numpy.stack(rows) * factors
    return products(scaled, scaled)


def in_float64() -> contextlib.AbstractContextManager[None]:
    wide: contextlib.AbstractContextManager[None] = jax.enable_x64(True)
    return wide


def largest(rows: Sequence[Tensor]) -> Tensor:
    return jax.numpy.stack([jax.numpy.max(jax.numpy.abs(row), initial=0.0) for row in rows])


def products(a: Tensor, b: Tensor) -> Tensor:
    # The default precision on a GPU rounds the numbers before they are multiplied.
    return jax.numpy.matmul(a, b.T, precision="highest")


def spectrum(planes: Tensor) -> Tensor:
    found = jax.numpy.fft.rfft2(planes)
    return jax.numpy.square(found.real) + jax.numpy.square(found.imag)


def entropy_of_ids(logits: Tensor, ids: Tensor, smoothing: float) -> Tensor:
    # With m the largest logit, log(p_c) = (z_c - m) - log(sum exp(z - m)), and m cancels: its slope
    # may be left out. XLA then writes no array of log-probabilities, which takes half the time.
    largest = jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True))
    partition = jax.numpy.log(jax.numpy.exp(logits - largest).sum(axis=-1, keepdims=True))
    own = largest - jax.numpy.take_along_axis(logits, ids, axis=-1)
    if not smoothing:
        return partition + own
    mean = (largest - logits).mean(axis=-1, keepdims=True)
    return partition + (1 - smoothing) * own + smoothing * mean


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    return _squared_distances(a, b)


def _sum_of_squares(a: Tensor, b: Tensor) -> Tensor:
    # XLA adds up the squares without storing the differences.
    return jax.numpy.sum(jax.numpy.square(a[:, None] - b[None]), axis=-1)


def _squared_distances_forward(a: Tensor, b: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    return _squared_distances(a, b), (a, b)


def _squared_distances_backward(
    points: tuple[Tensor, Tensor], upstream: Tensor
) -> tuple[Tensor, Tensor]:
    # The features come first: XLA then adds up several times as fast.
    a, b = (point.T for point in points)
    slope = 2 * upstream * (a[:, :, None] - b[:, None])
    return jax.numpy.sum(slope, axis=2).T, -jax.numpy.sum(slope, axis=1).T


_squared_distances = jax.custom_vjp(_sum_of_squares)
_squared_distances.defvjp(_squared_distances_forward, _squared_distances_backward)


def spatial_sum(x: Tensor) -> Tensor:
    batch, *rows, width, channels = x.shape
    if channels == 1 or channels >= 16 or x.ndim == 3:
        return x.sum(tuple(range(1, x.ndim - 1)))
    # As in `plain`. Without the barrier XLA makes one sum of the two.
    long = x.reshape(batch, math.prod(rows), width * channels)
    wide = jax.lax.optimization_barrier(long.sum(1))
    return wide.reshape(batch, width, channels).sum(1)


def spatial_product(a: Tensor, b: Tensor) -> Tensor:
    # XLA on a CPU (JAX 0.10.2) takes ten times as long for a sum of plain products of a single
    # channel: it merges both in a kernel that goes along the last axis. It merges no `where`. This
    # one changes neither the products nor their slopes, which a test for 0 would.
    return spatial_sum(jax.numpy.where(a != jax.numpy.inf, a * b, a))


def nth_largest(rows: Tensor, most: Any, places: Tensor | None) -> Tensor:
    if rows.dtype != "float32":
        return plain.nth_largest(rows, most, places)
    return _nth_by_bits(rows, most if places is None else places)


def _nth_by_bits(rows: Tensor, places: Tensor) -> Tensor:
    """Finds the number bit by bit: 32 times it counts how many are at least as large.

    On a CPU that takes a fiftieth of the time of XLA's `top_k`, if many are asked for.
    """
    bits = jax.lax.bitcast_convert_type(rows, "uint32")
    sign = jax.numpy.uint32(1 << 31)
    # Keys in the order of the numbers: negative ones with all bits turned, others with the sign.
    keys = jax.numpy.where(bits >= sign, ~bits, bits | sign)

    def with_bit(index: Tensor, found: Tensor) -> Tensor:
        larger = found | (sign >> index.astype("uint32"))
        count = jax.numpy.sum(keys >= larger, axis=1, keepdims=True, dtype="int32")
        return jax.numpy.where(count >= places, larger, found)

    found = jax.lax.fori_loop(0, 32, with_bit, jax.numpy.zeros((len(rows), 1), "uint32"))
    found = jax.numpy.where(found >= sign, found ^ sign, ~found)
    return jax.lax.bitcast_convert_type(found, "float32")


def order_down(rows: Tensor) -> Tensor:
    # The bits of a key that fit beside a place into 32: see `_order_by_digits`.
    bits = 32 - max(rows.shape[-1] - 1, 1).bit_length()
    if rows.dtype != "float32" or bits < 11:
        return plain.order_down(rows)
    on_cpu = functools.partial(_order_by_digits, bits=bits)
    return jax.lax.platform_dependent(rows, cpu=on_cpu, default=plain.order_down)


def _order_by_digits(rows: Tensor, bits: int) -> Tensor:
    # XLA on a CPU (JAX 0.10.2) sorts an array of whole numbers four to five times as fast as one of
    # floats, or as two arrays. So numbers and places are packed into whole numbers, and sorted by
    # one digit of `bits` bits after another, the lowest first: a radix sort.
    numpy, of_place = jax.numpy, 32 - bits
    key = jax.lax.bitcast_convert_type(rows, "uint32")
    # Floats are ordered as their bits are, negative ones in reverse. The key falls as they rise.
    key = numpy.where(key >> 31 == 1, key, key ^ 0x7FFFFFFF)
    places = numpy.broadcast_to(numpy.arange(rows.shape[-1], dtype="uint32"), rows.shape)
    order = None
    for shift in range(0, 32, bits):
        digit = key >> shift & (1 << bits) - 1
        digit = digit if order is None else numpy.take_along_axis(digit, order, axis=-1)
        packed = jax.lax.sort(digit << of_place | places, is_stable=False)
        found = (packed & (1 << of_place) - 1).astype("int32")
        order = found if order is None else numpy.take_along_axis(order, found, axis=-1)
    return order


def places_after(rows: Tensor, values: Tensor) -> Tensor:
    search = functools.partial(jax.numpy.searchsorted, side="right")
    return jax.vmap(search)(rows, values)


def combine(weights: Tensor, rows: Sequence[Tensor]) -> Tensor:
    weights = jax.lax.stop_gradient(weights)
    return sum(weights[index] * row for index, row in enumerate(rows))


def either(condition: Tensor, yes: Callable[[], _T], no: Callable[[], _T]) -> _T:
    chosen: _T = jax.lax.cond(condition, yes, no)
    return chosen


def attach(value: Tensor, points: Sequence[keras.Variable], gradients: GradientsOf) -> Tensor:
    # A `custom_vjp` keeps arrays for its gradient, no functions of arrays of the same trace.
    return _attached(jax.lax.stop_gradient(value), [p.value for p in points], gradients(1.0))


_attached = jax.custom_vjp(lambda value, points, gradients: value)
_attached.defvjp(
    lambda value, points, gradients: (value, gradients),
    lambda gradients, upstream: (
        jax.numpy.zeros_like(upstream),
        [upstream * gradient for gradient in gradients],
        [jax.numpy.zeros_like(gradient) for gradient in gradients],
    ),
)


# Up to this many passes through the network are compiled one by one: they take a third of the time
# of all in one with a further axis. But the time to compile grows with each. Where kernels have
# factors in place of gradients, the further axis is the faster one.
_UNROLLED = 16


def capture(model: keras.Model, arguments: tuple[Any, ...]) -> Capture:
    return _Capture(model, arguments)


class _Capture(Capture):
    """Keeps how to repeat the step; its points at layers are zeros, to be added to the outputs.

    The repetition is compiled together with the step. What is the same in both is computed once.
    """

    def __init__(self, model: keras.Model, arguments: tuple[Any, ...]) -> None:
        super().__init__(model)
        state = keras_private.state_given(arguments)
        self._optimizer_variables = keras_private.read_state(state).optimizer or []
        # While the step is repeated: what is added to the outputs of a layer, in turn.
        self._added: dict[str, Iterator[Tensor]] = {}
        # And what comes in place of the products with a kernel, by its `id`.
        self._moved: dict[int, Callable[[Product], Tensor]] = {}
        self._inside: set[int] = set()  # the `id`s of kernels that are used in transformations

    def watch(self, name: str, tensor: Tensor) -> Tensor:
        if probed() is None:
            zeros = jax.numpy.zeros(tensor.shape, "float32")
            self._watched.setdefault(name, []).append(zeros)
        elif name in self._added:
            tensor = tensor + next(self._added[name]).astype(tensor.dtype)
        return tensor

    def loss_scale(self) -> Tensor:
        variables = self._model.optimizer.variables
        pairs = list(zip(variables, self._optimizer_variables, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return super().loss_scale()

    def watch_product(self, product: Product) -> Tensor:
        if probed() is None:
            # Arrays inside another transformation, such as that of `input_gradients` or of
            # rematerialisation, are not there any more when gradients are measured.
            if _trace_of(product.z) is not _trace_of(product.kernel.value):
                self._inside.add(id(product.kernel))
                return product.z
            return super().watch_product(product)
        if id(product.kernel) not in self._moved:
            return product.z
        return self._moved[id(product.kernel)](product)

    def rows(
        self, rule: Reader, values: list[Tensor], points: Sequence[Any], scale: Tensor
    ) -> Columns:
        k = len(values)
        if not isinstance(points[0], keras.Variable):
            at = jax.lax.stop_gradient(list(points))
            return columns(self._pulled_back(rule, {}, at, k, scale), scale)
        factored = self._not_used_elsewhere(rule, points, self._factored(rule, k, points))
        products = [product for each in factored.values() for product in each]
        others = [index for index in range(len(points)) if index not in factored]
        at = [jax.lax.stop_gradient(points[index].value) for index in others]
        at += [jax.numpy.zeros(product.z.shape, "float32") for product in products]
        variables = {id(points[index]): place for place, index in enumerate(others)}
        found = self._pulled_back(rule, variables, at, k, scale, products)
        flat = [each[: len(others)] for each in found]
        result: dict[int, Any] = dict(zip(others, columns(flat, scale), strict=True))
        slopes = (
            jax.numpy.stack([each[place] for each in found]) / scale
            for place in range(len(others), len(at))
        )
        for index, each in factored.items():
            result[index] = joined(each, [next(slopes) for _ in each])
        return [result[index] for index in range(len(points))]

    def _pulled_back(
        self,
        rule: Reader,
        variables: dict[int, int],
        at: list[Tensor],
        k: int,
        scale: Tensor,
        products: Sequence[Product] = (),
    ) -> Rows:
        """The gradients of the k values by each of `at`.

        These are the values of variables, at the places that `variables` tells, and then what is
        added to the results of products; or what is added to the outputs of a layer.
        """

        def repeated(at: list[Tensor]) -> Tensor:
            replaced = {key: at[place] for key, place in variables.items()}
            added = iter(at[len(variables) :])
            self._added = {} if rule.place == "parameters" else {rule.place: added}

            def move(product: Product) -> Tensor:
                return product.z + next(queues[id(product.kernel)])

            queues: dict[int, Iterator[Tensor]] = {}
            for kernel, each in _by_kernel(products).items():
                queues[kernel] = iter([next(added) for _ in each])
            self._moved = dict.fromkeys(queues, move)
            return self._values(rule, replaced) * scale

        _, pullback = jax.vjp(repeated, at)
        each = jax.numpy.eye(k, dtype="float32")
        if k <= _UNROLLED and not products:
            return [pullback(one)[0] for one in each]
        together = jax.vmap(lambda one: pullback(one)[0])(each)
        return [[point[i] for point in together] for i in range(k)]

    def _not_used_elsewhere(
        self, rule: Reader, points: Sequence[Any], factored: dict[int, list[Product]]
    ) -> dict[int, list[Product]]:
        """Those of the products by whose kernels the values have no gradient but through them."""
        factored = {i: each for i, each in factored.items() if id(points[i]) not in self._inside}
        if not factored:
            return {}
        keys = [id(points[index]) for index in factored]

        def without_kernels(kernels: list[Tensor]) -> Tensor:
            self._added, self._moved = {}, dict.fromkeys(keys, _of_inputs_alone)
            return self._values(rule, dict(zip(keys, kernels, strict=True)))

        kernels = [jax.lax.stop_gradient(points[index].value) for index in factored]
        used = _used(jax.make_jaxpr(without_kernels)(kernels).jaxpr)
        return {
            index: each
            for (index, each), is_used in zip(factored.items(), used, strict=True)
            if not is_used
        }

    def _values(self, rule: Reader, parameters: dict[int, Tensor]) -> Tensor:
        """The values of the components of a rule, computed from the beginning of the step.

        `parameters` replaces the values of some variables, by their `id`.
        """
        model = self._model
        values: list[Tensor] = []
        state, args, kwargs = self.call
        metrics, loss = self.loss
        trainable = [
            parameters.get(id(v), jax.lax.stop_gradient(v.value)) for v in model.trainable_variables
        ]
        with probing(rule, values):
            y_pred, state, *_ = model.stateless_call(trainable, state, *args, **kwargs)
            loss = {**loss, "y_pred": y_pred}
            model.stateless_compute_loss(trainable, state, metrics, **loss)
        return jax.numpy.stack([jax.numpy.asarray(value, "float32") for value in values])


def _trace_of(tensor: Tensor) -> Any:
    """What computes with a tensor while a function is transformed; None outside of that."""
    return getattr(tensor, "_trace", None)


def _by_kernel(products: Sequence[Product]) -> dict[int, list[Product]]:
    found: dict[int, list[Product]] = {}
    for product in products:
        found.setdefault(id(product.kernel), []).append(product)
    return found


def _of_inputs_alone(product: Product) -> Tensor:
    """An array like the product, computed of its inputs without the kernel."""
    return jax.numpy.zeros_like(product.z) + jax.numpy.sum(product.x)


def _used(jaxpr: Any) -> list[bool]:
    """Which inputs of a computation its results depend on; in doubt True."""
    needed = {id(each) for each in jaxpr.outvars}
    for equation in reversed(jaxpr.eqns):
        if any(id(each) in needed for each in equation.outvars):
            needed.update(map(id, equation.invars))
    return [id(each) in needed for each in jaxpr.invars]


def entries(x: Tensor, number: int) -> list[Tensor]:
    # As a product with the unit matrix, which gives exactly the same numbers. XLA may merge slices
    # of `x` with the gradient of a sigmoid before it, into a loop that overwrites what it still has
    # to read: XLA on a CPU (JAX 0.10.2) lets the result use the buffer of an operand, although that
    # operand is used a second time, reshaped. The product is faster, too, because entries of one
    # axis lie together.
    unit = jax.numpy.eye(number, dtype=x.dtype)
    return list(jax.numpy.tensordot(unit, x, (1, x.ndim - 1), precision="highest"))
