"""Each place where we rely on what Keras does not promise, tried with Keras alone.

`@seam` names what a test tries: functions of `keras_private`, or, where we override what Keras
calls, the files that do. What happens in training is in test_keras_seams_in_training.py.
"""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import ops

from combined_losses._backend import backend, keras_private
from tests import test_keras_seams_in_training as in_training
from tests.seams import X, Y, line, numbers, on, seam, users_of

pytestmark = [pytest.mark.depends_on_version, pytest.mark.fast]


def test_every_function_is_tried_and_used():
    tests = [*globals().values(), *vars(in_training).values()]
    tried = {name for test in tests for name in getattr(test, "functions", ())}
    functions = {*keras_private.__all__} - {"READ_IN"}
    assert functions == tried
    assert [name for name in sorted(functions) if not users_of([name])] == []


# Optimizers.


@seam("inner_optimizer", "loss_scale")
def test_loss_scales():
    plain, scaled = keras.optimizers.SGD(), keras.optimizers.SGD(loss_scale_factor=8.0)
    scaler = keras.optimizers.LossScaleOptimizer(plain, initial_scale=4.0)
    assert keras_private.inner_optimizer(scaler) is plain
    assert keras_private.inner_optimizer(plain) is plain
    found = [keras_private.loss_scale(optimizer) for optimizer in (plain, scaled, scaler)]
    assert list(map(float, found)) == [1.0 if plain.loss_scale_factor is None else 0.0, 8.0, 4.0]
    assert isinstance(found[0], float)


@seam("keep_from_weight_decay")
@pytest.mark.parametrize("built", [False, True])
def test_weight_decay_leaves_variables_alone(built):
    _, users, ours = variables = [keras.Variable([1.0]) for _ in range(3)]
    optimizer = keras.optimizers.SGD(learning_rate=1.0, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[users])
    if built:
        optimizer.build(variables)
        optimizer.apply([ops.zeros((1,))] * 3)
    before = [numbers(v)[0] for v in variables]
    keras_private.keep_from_weight_decay(optimizer, [ours])
    optimizer.apply([ops.zeros((1,))] * 3, variables)
    after = [numbers(v)[0] for v in variables]
    assert after[0] < before[0] and after[1:] == before[1:]


# Compiling.


def refusing(y_true, y_pred):
    raise ValueError("Keras has computed a loss that it should only keep")


@seam("compile_without_loss", "forget_loss", files=["training/mixin.py: compute_loss"])
def test_a_loss_that_keras_keeps_and_does_not_compute():
    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.sum(y_pred) * 0.0 + 3.0

    inputs = keras.Input((2,))
    model = Own(inputs, keras.layers.Dense(1)(inputs))
    keras_private.compile_without_loss(model.compile, model, "sgd", refusing, False, {})
    assert model.loss is refusing
    assert float(model.train_on_batch(X, Y)) == 3.0
    model.compile("sgd", None)
    assert model.loss is refusing
    keras_private.forget_loss(model)
    assert model.loss is None


@seam("compile_without_loss")
def test_a_loss_that_keras_computed_before_stays_until_it_is_given_another():
    model = line(loss=refusing)
    model.compile("sgd", None)
    with pytest.raises(ValueError, match="should only keep"):
        model.compute_loss(X, Y, ops.convert_to_tensor(Y))
    keras_private.compile_without_loss(model.compile, model, "sgd", "mse", True, {})
    assert float(model.compute_loss(X, Y, ops.convert_to_tensor(Y))) == 0.0


@seam("compiled_loss_weights")
def test_loss_weights_as_compiled():
    model = line(loss=lambda y_true, y_pred: y_pred, loss_weights=[0.5])
    assert keras_private.compiled_loss_weights(model) == [0.5]
    assert keras_private.compiled_loss_weights(line()) is None


@seam("replace_compile_config", files=["training/h5.py", "training/mixin.py: get_compile_config"])
def test_savers_read_the_compile_config_of_a_model(tmp_path):
    model, loss = line(), keras.losses.Huber(name="another")

    def other(plain):
        stored = {**plain.serialize(), "loss": keras.saving.serialize_keras_object(loss)}
        return SimpleNamespace(config={**plain.config, "loss": loss}, serialize=lambda: stored)

    keras_private.replace_compile_config(model, other)
    for name in ("model.h5", "model.keras"):
        model.save(tmp_path / name)
        assert keras.models.load_model(tmp_path / name).loss.name == "another"


@seam("has_counted_no_loss", "behind_loss")
def test_the_loss_is_the_first_of_the_metrics():
    model = line(metrics=["mae"])
    assert keras_private.has_counted_no_loss(model.metrics)
    model.test_on_batch(X, Y)
    assert not keras_private.has_counted_no_loss(model.metrics)
    assert keras_private.behind_loss(model.metrics_names, ["own"])[:2] == ["loss", "own"]


# Models and layers.


@seam("FUNCTIONAL", "are_functional_arguments", "output_names", "copy_dtype_policy")
def test_functional_models():
    model = line()
    assert type(model) is keras_private.FUNCTIONAL
    assert keras_private.output_names(model) == ["last"]
    assert keras_private.output_names(keras.Model()) is None
    calls = [(("a", "b"), {}), (("a",), {"outputs": "b"}), ((), {"inputs": "a", "outputs": "b"})]
    for args, kwargs in [*calls, ((), {}), ((), {"name": "c"})]:
        made = type(keras.Model.__new__(keras.Model, *args, **kwargs))
        functional = keras_private.are_functional_arguments(args, kwargs)
        assert (made is keras_private.FUNCTIONAL) == functional
    other = line()
    other.dtype_policy = "mixed_bfloat16"
    keras_private.copy_dtype_policy(model, other)
    assert model.dtype_policy.name == "mixed_bfloat16"


@seam("put_functional_below")
def test_a_functional_class_below_a_class_of_the_users():
    class Base(keras.Model):
        pass

    class Functional(Base, keras_private.FUNCTIONAL):
        pass

    class Users(Base):
        pass

    class Another(Base):
        pass

    keras_private.put_functional_below(Users, Base, Functional)
    inputs = keras.Input((2,))
    model = Users(inputs, keras.layers.Dense(1)(inputs))
    assert isinstance(model, Functional) and model(X).shape == (2, 1)
    assert Base.__bases__ == (keras.Model,) and Another.__bases__ == (Base,)


@seam("put_call", "restore_call")
def test_the_call_of_a_layer_is_replaced():
    model = line(run_eagerly=True)
    layer = model.get_layer("last")
    call, before = layer.call, numbers(model(X))
    keras_private.put_call(layer, lambda *args, **kwargs: call(*args, **kwargs) + 1.0)
    np.testing.assert_allclose(numbers(model(X)), np.add(before, 1.0), rtol=1e-6)
    keras_private.restore_call(layer)
    assert numbers(model(X)) == before


@seam("is_rematerialised")
def test_a_layer_says_whether_it_is_computed_twice():
    with keras.RematScope(mode="full"):
        twice = keras.layers.Dense(2)
    assert keras_private.is_rematerialised(twice)
    assert not keras_private.is_rematerialised(keras.layers.Dense(2))


@seam("other_activation")
@pytest.mark.parametrize("layered", [False, True])
def test_a_dense_layer_gives_its_product_to_another_activation(layered):
    activation = keras.layers.LeakyReLU() if layered else "tanh"
    layer = keras.layers.Dense(2, activation=activation)
    before, seen = numbers(layer(X)), []
    with keras_private.other_activation(layer, lambda z: seen.append(z) or z + 1.0):
        found = numbers(layer(X))
    product = ops.matmul(ops.convert_to_tensor(X), layer.kernel) + layer.bias
    np.testing.assert_allclose(numbers(seen[0]), numbers(product), rtol=1e-6)
    np.testing.assert_allclose(found, np.add(numbers(product), 1.0), rtol=1e-6)
    assert numbers(layer(X)) == before


@seam("strategy_of", "replicas_of")
def test_the_strategy_of_a_model():
    assert keras_private.replicas_of(None) == 1
    if keras.backend.backend() != "tensorflow":
        assert keras_private.strategy_of(line()) is None
        return
    import tensorflow as tf

    strategy = tf.distribute.OneDeviceStrategy("cpu:0")
    with strategy.scope():
        model = line()
    assert keras_private.strategy_of(model) is strategy
    assert keras_private.replicas_of(strategy) == 1


# Losses, masks, logits.


class MyOwnLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)


@seam("function_called_by", "arguments_of_function", "whole_config", "is_numbered_name")
def test_what_the_losses_of_keras_are_made_of():
    sparse = keras.losses.SparseCategoricalCrossentropy(ignore_class=2, axis=1)
    assert keras_private.function_called_by(keras.losses.Huber()) is keras.losses.huber
    assert keras_private.function_called_by(MyOwnLoss()) is None
    changed = keras.losses.Huber()
    changed.call = lambda y_true, y_pred: y_pred
    assert keras_private.function_called_by(changed) is None
    found = keras_private.arguments_of_function(sparse)
    assert (found["axis"], found["ignore_class"]) == (1, 2)
    assert keras_private.whole_config(keras.losses.Huber(delta=3.0))["delta"] == 3.0
    assert keras_private.whole_config(keras.losses.CosineSimilarity(axis=0))["axis"] == 0
    assert keras_private.whole_config(sparse)["axis"] == 1
    assert keras_private.whole_config(MyOwnLoss(name="a"))["name"] == "a"
    names = [MyOwnLoss().name for _ in range(2)]
    assert keras_private.is_numbered_name(names[1], "my_own_loss")
    assert not keras_private.is_numbered_name("my_loss", "my_own_loss")


@seam("is_in_compiled_loss")
def test_who_calls_a_loss():
    found = []

    def asking(y_true, y_pred):
        found.append(keras_private.is_in_compiled_loss())
        return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    model = line()
    model.compile("sgd", loss=asking)
    model.evaluate(X, Y, verbose=0)
    assert found and all(found)
    found.clear()
    asking(Y, Y)
    assert found == [False]


@seam("calls_for_itself", "mask_of", "put_mask", "prepare_masks")
def test_what_the_call_of_a_loss_does():
    class Whole(MyOwnLoss):
        def __call__(self, y_true, y_pred, sample_weight=None):
            return super().__call__(y_true, y_pred)

    assert keras_private.calls_for_itself(Whole())
    assert not keras_private.calls_for_itself(MyOwnLoss())
    keras_private.prepare_masks()
    y_pred = ops.convert_to_tensor(np.array([[[1.0], [7.0]], [[2.0], [0.0]]], "float32"))
    mask = ops.convert_to_tensor(np.array([[True, False], [True, True]]))
    assert keras_private.mask_of(y_pred) is None
    masked = keras_private.put_mask(y_pred + 0.0, mask)
    assert numbers(keras_private.mask_of(masked)) == numbers(mask)
    y_true, weights = ops.zeros((2, 2, 1)), np.array([[2.0, 2.0], [1.0, 1.0]], "float32")
    # The values are [[1, 7], [2, 0]], the weights with the mask [[2, 0], [1, 1]].
    expected = {"sum": 4.0, "sum_over_batch_size": 4 / 3, "mean_with_sample_weight": 1.0}
    for reduction, value in expected.items():
        found = MyOwnLoss(reduction=reduction)(y_true, masked, weights)
        np.testing.assert_allclose(numbers(found), value, rtol=1e-6)


@on("tensorflow")
@seam(files=["_core/reduction.py", "_backend/tensorflow_replicas.py: as_one_replica"])
def test_a_loss_divides_a_mean_by_the_number_of_replicas(monkeypatch):
    import tensorflow as tf

    y_true, y_pred = ops.zeros((2, 1)), ops.ones((2, 1))
    two = SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(tf.distribute, "get_strategy", lambda: two)
    reductions = ("sum_over_batch_size", "mean_with_sample_weight", "sum")
    found = [MyOwnLoss(reduction=reduction)(y_true, y_pred) for reduction in reductions]
    assert list(map(numbers, found)) == [0.5, 0.5, 2.0]


@seam("mask_of")
def test_the_mask_of_a_layer():
    padded = np.array([[[1.0], [0.0]]], "float32")
    masked = keras.layers.Masking()(ops.convert_to_tensor(padded))
    assert numbers(keras_private.mask_of(masked)) == [[True, False]]


LABELS, LOGITS = np.array([[1.0, 0.0]], "float32"), np.array([[-200.0, 200.0]], "float32")


@on("tensorflow")
@seam("logits_before", "keep_logits", "activation_before")
def test_cross_entropies_take_the_logits_behind_probabilities():
    import tensorflow as tf

    softmax = keras.activations.softmax(ops.convert_to_tensor(LOGITS))
    assert numbers(keras_private.logits_before(softmax)) == LOGITS.tolist()
    plain = ops.convert_to_tensor(np.array([[0.5, 0.5]], "float32"))
    assert keras_private.logits_before(plain) is None
    keras_private.keep_logits(plain, LOGITS)
    crossentropy = keras.losses.categorical_crossentropy
    assert float(crossentropy(LABELS, softmax)[0]) == 400.0
    assert float(crossentropy(LABELS, plain)[0]) == 400.0
    found = []

    @tf.function
    def in_a_graph(logits):
        softmax, sigmoid = tf.nn.softmax(logits), tf.sigmoid(logits)
        found.extend(map(keras_private.activation_before, (softmax, sigmoid, logits)))
        return crossentropy(LABELS, softmax)

    assert float(in_a_graph(tf.constant(LOGITS))[0]) == 400.0
    assert found == ["Softmax", "Sigmoid", None]


# Variables.


@seam("constrain", "seed_state", "variables_of_layer")
def test_variables():
    variable = keras.Variable([3.0])
    keras_private.constrain(variable, keras.constraints.NonNeg())
    keras.optimizers.SGD(1.0).apply([ops.ones((1,)) * 5.0], [variable])
    assert numbers(variable) == [0.0]
    generator = keras.random.SeedGenerator(1)
    before = numbers(keras_private.seed_state(generator))
    first = numbers(keras.random.normal((2,), seed=generator))
    assert numbers(keras_private.seed_state(generator)) != before
    keras_private.seed_state(generator).assign(before)
    assert numbers(keras.random.normal((2,), seed=generator)) == first

    class More(keras.layers.Dense):
        @property
        def variables(self):
            return [*super().variables, variable]

    layer = More(1)
    layer.build((None, 2))
    assert len(keras_private.variables_of_layer(layer)) == 2


@seam("noting_reads")
def test_reads_of_variables_are_noted():
    variable, read = keras.Variable([1.0]), []
    with keras_private.noting_reads(read.append):
        ops.add(variable, 1.0)
    assert read and all(each is variable for each in read)
    noted = len(read)
    ops.add(variable, 1.0)
    assert len(read) == noted


@on("jax")
@seam(files=["_backend/jax.py: is_compiling"])
def test_a_function_that_is_compiled_is_known_by_its_new_arrays():
    import jax

    found = [backend.is_compiling()]
    jax.grad(lambda x: found.append(backend.is_compiling()) or x)(1.0)
    jax.jit(lambda x: found.append(backend.is_compiling()) or x)(1.0)
    assert found == [False, False, True]
