"""What only TensorFlow has: several replicas that each see a part of the batch, and tapes."""

import contextlib
import functools
import re
import threading

import keras
import tensorflow as tf

from combined_losses._backend import keras_private
from combined_losses._backend.capture import Capture, columns


def replica_count():
    """The number of replicas that compute this batch together; 1 outside a replica."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def global_sum(value):
    """The sum of `value` over all replicas; its gradient is that of all of them together."""
    if replica_count() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


# As Keras's own losses in a `tf.function`: AutoGraph would rewrite all that is called in it first,
# which takes seconds.
as_written = tf.autograph.experimental.do_not_convert


def is_eager(variables):
    """Whether the values of variables can be looked at."""
    return tf.executing_eagerly()


def read_variable(value):
    """The tensor of a variable, which lacks what Keras asks of tensors; a tensor as it is."""
    return tf.convert_to_tensor(value) if isinstance(value, tf.Variable) else value


def as_one_replica():
    """In the block Keras and we compute as if there were one replica.

    Keras divides means by the number of replicas. Inside a loss that is called whole, nobody can
    tell which of its parts went through Keras.
    """
    if replica_count() == 1:
        return contextlib.nullcontext()
    number = tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.distribute.ReplicaContext(_strategy_of_one(), number)


@functools.lru_cache(maxsize=1)
def _strategy_of_one():
    """TensorFlow's default strategy, which a thread outside all scopes has."""
    found = []
    thread = threading.Thread(target=lambda: found.append(tf.distribute.get_strategy()))
    thread.start()
    thread.join()
    return found[0]


# The dtypes that replicas can gather.
_GATHERED = (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64)


def global_concat(value):
    """The rows of `value` of all replicas; the gradient of its own is that of all of them."""
    if replica_count() == 1:
        return value
    gather = tf.distribute.get_replica_context().all_gather
    if value.dtype in _GATHERED:
        return gather(value, axis=0)
    wide = tf.float32 if value.dtype.is_floating else tf.int64  # uint64 wraps there, and back
    return tf.cast(gather(tf.cast(value, wide), axis=0), value.dtype)


def global_offset(size):
    """How many rows the replicas before this one have, where it has `size`."""
    if replica_count() == 1:
        return 0
    context = tf.distribute.get_replica_context()
    sizes = context.all_gather(tf.reshape(tf.cast(size, "int32"), (1,)), axis=0)
    return tf.reduce_sum(sizes[: context.replica_id_in_sync_group])


def gradient(function):
    """The gradient of a function of one tensor to a scalar, itself differentiable."""

    def gradient_at(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return gradient_at


def sound_gradient(tensor):
    """`tensor`, with a gradient of 0 where any entry of it, in any replica, is not finite."""
    # Keras's cross-entropies take the logits behind probabilities: their gradient goes there.
    logits = keras_private.logits_before(tensor)
    if logits is not None:
        found = _sound(tensor)
        keras_private.keep_logits(found, _sound(logits))
        return found
    made_by = _activation_before(tensor)
    if made_by is not None:
        activation = tf.nn.softmax if made_by == "Softmax" else tf.sigmoid
        return activation(_sound(tensor.op.inputs[0]))
    return _sound(tensor)


def _activation_before(tensor):
    return keras_private.activation_before(tensor) if tf.is_symbolic_tensor(tensor) else None


@tf.custom_gradient
def _sound(tensor):
    def backward(upstream):
        upstream = tf.convert_to_tensor(upstream)
        sound = tf.reduce_all(tf.math.is_finite(upstream))
        if replica_count() > 1:
            sound = tf.equal(global_sum(tf.cast(sound, "float32")), float(replica_count()))
        return tf.where(sound, upstream, tf.zeros_like(upstream))

    return tf.identity(tensor), backward


def is_in_scope(strategy, variable):
    """Whether a variable was made inside the scope of a distribution strategy."""
    return strategy is None or strategy.extended.variable_created_in_scope(variable.value)


def evaluate_with_rows(points, view, parts, variables):
    """What `parts` give of `view(points)`, and the gradient of each one's total at each point."""

    def evaluated(points):
        batch = view(points)
        found = [part(batch) for part in parts]
        return [each.total for each in found], found

    _, found, rows = _rows_of(evaluated, points, variables)
    return found, rows


def compiled(function, variables):
    """A function of tensors, compiled, that reads variables as they are at every call."""

    def own(*args):  # by which TensorFlow tells it from other functions that it has compiled
        return function(*args)

    return tf.function(own, autograph=False, reduce_retracing=True)


def rows_of(function, points):
    """What a function of points gives, and the gradient of each of its values at each point.

    The function gives a list of k scalars and anything besides; the rows are k lists of one
    gradient for each point.
    """
    return _rows_of(function, points, [])


def _rows_of(function, points, variables):
    """`rows_of` a function that may assign variables."""
    has_logits = any(map(_has_logits, points))
    # As they are before the function assigns any of them.
    before = [(v, tf.convert_to_tensor(v.value)) for v in variables] if has_logits else []
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        values, more = function(points)
    if has_logits:
        # Keras's cross-entropies then go around the point, to the logits: a second time without.
        points = [tf.identity(point) for point in points]
        scope = keras.StatelessScope(state_mapping=before)
        with scope, tf.GradientTape(persistent=True) as tape:
            tape.watch(points)
            reached, _ = function(points)
    else:
        reached = values
    return values, more, [_gradients(tape, value, points) for value in reached]


def _has_logits(tensor):
    """Whether Keras finds the logits behind probabilities."""
    return keras_private.logits_before(tensor) is not None or _activation_before(tensor) is not None


def _gradients(tape, value, points):
    found = tape.gradient(value, points)
    return [
        tf.zeros_like(tf.convert_to_tensor(point)) if row is None else tf.convert_to_tensor(row)
        for point, row in zip(points, found, strict=True)
    ]


def gramian(rows, scales):
    """The products of k flat gradients, each divided by its scale, a power of two: `(k, k)`."""
    factors = tf.unstack(1 / scales, len(rows))
    rows = tf.stack([row * factor for row, factor in zip(rows, factors, strict=True)])
    if tf.config.list_physical_devices("GPU"):  # whose products of matrices keep three digits
        return tf.stack([tf.reduce_sum(rows * row, axis=1) for row in tf.unstack(rows)])
    return tf.matmul(rows, rows, transpose_b=True)


def largest(rows):
    """The largest magnitude in each of k flat gradients, `(k,)`."""
    # By both ends, which needs no array of magnitudes.
    found = [tf.maximum(tf.reduce_max(row), -tf.reduce_min(row)) for row in rows]
    return tf.maximum(tf.stack(found), 0.0)  # of no entry it is -inf


def products(a, b):
    """The products of the rows of `a` with those of `b`, each to all digits of its dtype."""
    if tf.config.list_physical_devices("GPU"):  # whose products of float32 keep three digits
        wide = tf.matmul(tf.cast(a, "float64"), tf.cast(b, "float64"), transpose_b=True)
        return tf.cast(wide, a.dtype)
    return tf.matmul(a, b, transpose_b=True)


# Of so many features at a time is the difference of all rows kept.
_FEATURES = 16


def requiring(tensor, condition, message):
    """`tensor`; where it is computed, an error with `message` unless the condition holds."""
    with tf.control_dependencies([tf.debugging.Assert(condition, [message])]):
        # XLA leaves assertions out, but allows no length below 0: its error shows the name.
        name = re.sub(r"\W+", "_", message.partition(". ")[0]).strip("_")[:200]
        nothing = tf.fill([tf.where(condition, 0, -1)], 0.0, name=name)
    with tf.control_dependencies([nothing]):
        return tf.identity(tensor)


@tf.custom_gradient
def squared_distances(a, b):
    """The squared distances of the rows of `a` to those of `b`, from their differences."""
    a, b = tf.stop_gradient(a), tf.stop_gradient(b)  # or a tape would keep all differences
    known = range(0, a.shape[1] or 0, _FEATURES)
    parts = [slice(i, i + _FEATURES) for i in known] or [slice(None)]

    def differences(part):
        return a[:, None, part] - b[None, :, part]

    def backward(upstream):
        of_a, of_b = [], []
        for part in parts:
            slope = 2 * upstream[:, :, None] * differences(part)
            of_a.append(tf.reduce_sum(slope, axis=1))
            of_b.append(-tf.reduce_sum(slope, axis=0))
        return tf.concat(of_a, axis=-1), tf.concat(of_b, axis=-1)

    squares = [tf.reduce_sum(tf.square(differences(part)), axis=-1) for part in parts]
    return tf.add_n(squares), backward


def places_after(rows, values):
    """For each of the `values` of a row the place of the first greater one in the sorted row."""
    return tf.searchsorted(rows, values, side="right")


def combine(weights, rows):
    """The sum of k flat gradients with weights `(k,)`."""
    weights = tf.unstack(tf.stop_gradient(weights), len(rows))
    return tf.add_n([weight * row for weight, row in zip(weights, rows, strict=True)])


def either(condition, yes, no):
    """What one of two functions gives; only that one is computed."""
    return tf.cond(condition, yes, no)


def attach(value, points, gradients):
    """`value` with given gradients at variables, in place of its own."""

    @tf.custom_gradient
    def attached(*tensors):
        def backward(upstream):
            return [upstream * gradient for gradient in gradients]

        return tf.identity(value), backward

    return attached(*(tf.convert_to_tensor(point.value) for point in points))


def global_max(value):
    """The largest of `value` over all replicas."""
    if replica_count() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return tf.reduce_max(context.all_gather(value[None], axis=0), axis=0)


def capture(model, arguments):
    """A training step of `model` with the arguments of `train_step`, to be entered."""
    return _Capture(model)


class _Capture(Capture):
    """Keeps a tape of the step."""

    def __init__(self, model):
        super().__init__(model)
        self._tape = tf.GradientTape(persistent=True)

    def __enter__(self):
        self._tape.__enter__()
        return self

    def __exit__(self, *error):
        super().__exit__(*error)
        self._tape.__exit__(*error)
        del self._tape

    def watch(self, name, tensor):
        if _has_logits(tensor):
            tensor = tf.identity(tensor)
        self._tape.watch(tensor)
        self._watched.setdefault(name, []).append(tensor)
        return tensor

    def rows(self, rule, values, points, scale):
        values = [value * scale for value in values]
        with self._tape.stop_recording():
            rows = [_gradients(self._tape, value, points) for value in values]
            return columns(rows, scale)
