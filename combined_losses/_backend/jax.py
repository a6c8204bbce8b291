"""What only JAX has: a step that is compiled once reads the state outside it once and for all."""

import contextlib
import functools
from typing import Any

import jax
import keras

from combined_losses._backend import keras_private
from combined_losses._backend.capture import Capture, columns
from combined_losses._backend.probing import probed, probing


def is_compiling():
    """Whether a function is being compiled; a gradient alone, taken anew each time, is not."""
    return isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def gradient(function):
    """The gradient of a function of one tensor to a scalar, itself differentiable."""
    return jax.grad(function)


@jax.custom_vjp
def sound_gradient(tensor):
    """`tensor`, with a gradient of 0 where any entry of that gradient is not finite."""
    return tensor


def _sound(nothing, upstream):
    sound = jax.numpy.isfinite(upstream).all()
    return (jax.numpy.where(sound, upstream, jax.numpy.zeros_like(upstream)),)


sound_gradient.defvjp(lambda tensor: (tensor, None), _sound)


def restore_state(model, state):
    """Called after a step that failed: gives variables back the values that it was given.

    Keras takes them out of the variables before the first step. It gives them back from the result
    of a step, so that a first one that fails, for targets of a wrong shape say, leaves none.
    """
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


def is_threaded(variable):
    """Whether a function that is compiled is given the value of a variable."""
    return isinstance(variable.value, jax.core.Tracer)


def is_eager(variables):
    """Whether the values of variables can be looked at."""
    return not is_compiling() and not any(map(is_threaded, variables))


def is_traced(values):
    """Whether values belong to a trace, out of which nothing can be kept."""
    return is_compiling() or any(isinstance(v, jax.core.Tracer) for v in jax.tree.leaves(values))


def complete_state(given, state, tracker):
    """The state that a step returns, with the variables of `tracker` where it has left them out."""
    before = keras_private.read_state(given).metrics
    metrics = keras_private.read_state(state).metrics
    missing = len(before) - len(metrics)
    if missing == len(tracker.variables):
        metrics = [*metrics, *before[-missing:]]
    return keras_private.with_metrics(state, metrics)


def result_in(states, tracker):
    """The result of a metric whose variables are the last of those that a step returns."""
    metrics = keras_private.read_state(states[0]).metrics
    return tracker.stateless_result(metrics[-len(tracker.variables) :])


def evaluate_with_rows(points, view, parts, variables):
    """What `parts` give of `view(points)`, and the gradient of each one's total at each point.

    The parts are computed twice, which the compiler takes back: the functions are the same.
    """
    # As they are before the parts move any of them: the functions are the same only then.
    before = [(v, jax.lax.stop_gradient(v.value)) for v in variables]
    batch = view(points)
    found = [part(batch) for part in parts]
    points = jax.lax.stop_gradient(points)

    def gradients(part):
        # What is assigned in it is assigned above, too.
        apart = keras.StatelessScope(state_mapping=before)
        with apart if before else contextlib.nullcontext():
            return jax.grad(lambda points: part(view(points)).total)(points)

    return found, [gradients(part) for part in parts]


def rows_of(function, points):
    """What a function of points gives, and the gradient of each of its values at each point.

    The function gives a list of k scalars and anything besides; the rows are k lists of one
    gradient for each point.
    """

    def vector(points):
        values, more = function(points)
        return jax.numpy.stack(values), (values, more)

    _, pullback, (values, more) = jax.vjp(vector, points, has_aux=True)
    rows = [pullback(one)[0] for one in jax.numpy.eye(len(values), dtype="float32")]
    if is_compiling():
        return values, more, rows
    finite = [all(bool(jax.numpy.isfinite(row).all()) for row in each) for each in rows]
    if not all(finite):  # of one value: 0 * NaN of another one is NaN
        rows = [
            each if fine else jax.grad(lambda points, i=i: function(points)[0][i])(points)
            for i, (each, fine) in enumerate(zip(rows, finite, strict=True))
        ]
    return values, more, rows


def compiled(function, variables):
    """A function of tensors, compiled, that reads variables as they are at every call."""

    @jax.jit
    def run(values, args):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*args)

    return lambda *args: run([v.value for v in variables], args)


# So many numbers of each gradient are multiplied at a time; they stay in the cache. XLA needs nine
# times as long for one product of all, which it brings into another order first.
_CHUNK = 4096


def gramian(rows, scales):
    """The products of k flat gradients, each divided by its scale, a power of two: `(k, k)`."""
    size, factors = rows[0].size, 1 / scales[:, None]
    whole = size // _CHUNK * _CHUNK

    def add(index, total):
        start = index * _CHUNK
        parts = [jax.lax.dynamic_slice(row, (start,), (_CHUNK,)) for row in rows]
        return total + _products(parts, factors)

    rest = _products([row[whole:] for row in rows], factors)
    return jax.lax.fori_loop(0, whole // _CHUNK, add, rest) if whole else rest


def _products(rows, factors):
    rows = jax.numpy.stack(rows) * factors
    return products(rows, rows)


def largest(rows):
    """The largest magnitude in each of k flat gradients, `(k,)`."""
    return jax.numpy.stack([jax.numpy.max(jax.numpy.abs(row), initial=0.0) for row in rows])


def products(a, b):
    """The products of the rows of `a` with those of `b`, each to all digits of its dtype."""
    # On a GPU not in the shortened numbers that are the default.
    return jax.numpy.matmul(a, b.T, precision="highest")


@jax.custom_vjp
def squared_distances(a, b):
    """The squared distances of the rows of `a` to those of `b`, from their differences."""
    # XLA adds up without keeping the differences.
    return jax.numpy.sum(jax.numpy.square(a[:, None] - b[None]), axis=-1)


def _squared_distances(a, b):
    return squared_distances(a, b), (a, b)


def _slopes(points, upstream):
    # With the features first, which XLA adds up several times as fast.
    a, b = (point.T for point in points)
    slope = 2 * upstream * (a[:, :, None] - b[:, None])
    return jax.numpy.sum(slope, axis=2).T, -jax.numpy.sum(slope, axis=1).T


squared_distances.defvjp(_squared_distances, _slopes)


def places_after(rows, values):
    """For each of the `values` of a row the place of the first greater one in the sorted row."""
    search = functools.partial(jax.numpy.searchsorted, side="right")
    return jax.vmap(search)(rows, values)


def combine(weights, rows):
    """The sum of k flat gradients with weights `(k,)`."""
    weights = jax.lax.stop_gradient(weights)
    return sum(weights[index] * row for index, row in enumerate(rows))


def either(condition, yes, no):
    """What one of two functions gives; only that one is computed."""
    return jax.lax.cond(condition, yes, no)


@jax.custom_vjp
def _attached(value, points, gradients):
    return value


_attached.defvjp(
    lambda value, points, gradients: (value, gradients),
    lambda gradients, upstream: (
        jax.numpy.zeros_like(upstream),
        [upstream * gradient for gradient in gradients],
        [jax.numpy.zeros_like(gradient) for gradient in gradients],
    ),
)


def attach(value, points, gradients):
    """`value` with given gradients at variables, in place of its own."""
    return _attached(jax.lax.stop_gradient(value), [p.value for p in points], gradients)


# Up to so many passes through the network are compiled one by one: three times as fast as all in
# one with a further axis, but the time to compile grows with them.
_UNROLLED = 16


def capture(model, arguments):
    """A training step of `model` with the arguments of `train_step`, to be entered."""
    return _Capture(model, arguments)


class _Capture(Capture):
    """Keeps how to repeat the step, and in `_watched` zeros to be added to outputs of layers.

    The repetition is compiled together with the step, and what is the same in both computed once.
    """

    def __init__(self, model, arguments):
        super().__init__(model)
        state = keras_private.state_given(arguments)
        self._optimizer_variables = keras_private.read_state(state).optimizer
        self._moved: Any = {}  # while repeating: what is added to outputs of layers
        self.call: Any = None  # the state, arguments and keywords of the model's call
        self.loss: Any = None  # the metrics and keywords of its loss

    def watch(self, name, tensor):
        if probed() is None:
            zeros = jax.numpy.zeros(tensor.shape, "float32")
            self._watched.setdefault(name, []).append(zeros)
        elif name in self._moved:
            tensor = tensor + next(self._moved[name]).astype(tensor.dtype)
        return tensor

    def loss_scale(self):
        variables = self._model.optimizer.variables
        pairs = list(zip(variables, self._optimizer_variables, strict=True))
        with keras.StatelessScope(state_mapping=pairs):
            return super().loss_scale()

    def rows(self, rule, values, points, scale):
        at_parameters = isinstance(points[0], keras.Variable)
        at = jax.lax.stop_gradient([p.value if at_parameters else p for p in points])

        def repeated(at):
            moved = dict(zip(map(id, points), at, strict=True)) if at_parameters else {}
            self._moved = {} if at_parameters else {rule.place: iter(at)}
            return self._values(rule, moved) * scale

        _, pullback = jax.vjp(repeated, at)
        each = jax.numpy.eye(len(values), dtype="float32")
        if len(values) <= _UNROLLED:
            found = [pullback(one)[0] for one in each]
        else:
            together = jax.vmap(lambda one: pullback(one)[0])(each)
            found = [[point[i] for point in together] for i in range(len(values))]
        return columns(found, scale)

    def _values(self, rule, parameters):
        """The values of the components of a rule, from the beginning of the step.

        `parameters` holds values of variables by their `id`; the others have their own.
        """
        model, found = self._model, []
        state, args, kwargs = self.call
        metrics, loss = self.loss
        trainable = [
            parameters.get(id(v), jax.lax.stop_gradient(v.value)) for v in model.trainable_variables
        ]
        with probing(rule, found):
            y_pred, state, *_ = model.stateless_call(trainable, state, *args, **kwargs)
            loss = {**loss, "y_pred": y_pred}
            model.stateless_compute_loss(trainable, state, metrics, **loss)
        return jax.numpy.stack([jax.numpy.asarray(value, "float32") for value in found])


def entries(x, number):
    """The `number` entries of the last axis, each an array of its own."""
    # As a product with the unit matrix, which gives the very numbers. Slices of `x` may be merged
    # with the gradient of a sigmoid before it into a loop that overwrites what it still reads: XLA
    # on a CPU (JAX 0.10.2) lets the result have the buffer of an operand which is there a second
    # time, reshaped. It is faster, too: entries of one axis lie together.
    unit = jax.numpy.eye(number, dtype=x.dtype)
    return list(jax.numpy.tensordot(unit, x, (1, x.ndim - 1), precision="highest"))
