"""What a component reads beside its arguments: a teacher, a critic, a variable, a seed."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

import combined_losses as cl
from tests.training.tiny import FROZEN, sgd

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.random.default_rng(1).normal(size=(8, 2)).astype("float32")


def network(cls=keras.Sequential, seed=0):
    keras.utils.set_random_seed(seed)
    return cls([keras.Input((3,)), keras.layers.Dense(2)])


class Step(keras.callbacks.Callback):
    """Calls a function before each step, and keeps its results."""

    def __init__(self, act):
        super().__init__()
        self.act, self.found = act, []

    def on_train_batch_begin(self, batch, logs=None):
        self.found.append(self.act(self.model))


def train(model, act, epochs=3):
    step = Step(act)
    history = model.fit(X, Y, batch_size=8, epochs=epochs, verbose=0, callbacks=[step]).history
    return history, step.found


def distance(a, b):
    return np.mean(np.square(ops.convert_to_numpy(a) - ops.convert_to_numpy(b)))


def by_closure(teacher):
    def consistency(model, x, y, y_pred):
        return ops.mean(ops.square(y_pred - teacher(x)), axis=-1)

    return cl.wrappers.OnInputs(consistency)


class Consistency:
    """A callable object of the user's."""

    def __init__(self, teacher):
        self.teacher = teacher

    def term(self, model, x, y, y_pred):
        return ops.mean(ops.square(y_pred - self.teacher(x)), axis=-1)


def by_method(teacher):
    return cl.wrappers.OnInputs(Consistency(teacher).term, name="consistency")


def with_teacher(teacher, model, x, y, y_pred):
    return ops.mean(ops.square(y_pred - teacher(x)), axis=-1)


def by_partial(teacher):
    return cl.wrappers.OnInputs(functools.partial(with_teacher, teacher), name="consistency")


GLOBAL = {}


def of_global(model, x, y, y_pred):
    return ops.mean(ops.square(y_pred - GLOBAL["teacher"](x)), axis=-1)


def by_global(teacher):
    GLOBAL["teacher"] = teacher
    return cl.wrappers.OnInputs(of_global, name="consistency")


def by_default(teacher):
    def consistency(model, x, y, y_pred, teacher=teacher):
        return ops.mean(ops.square(y_pred - teacher(x)), axis=-1)

    return cl.wrappers.OnInputs(consistency)


def by_inner_function(teacher):
    def ask(x):
        return teacher(x)

    def consistency(model, x, y, y_pred):
        return ops.mean(ops.square(y_pred - ask(x)), axis=-1)

    return cl.wrappers.OnInputs(consistency)


class Settings:
    """An object of the user's."""


def by_attribute_of_attribute(teacher):
    settings = Settings()
    settings.networks = Settings()
    settings.networks.teacher = [teacher]

    def consistency(model, x, y, y_pred):
        return ops.mean(ops.square(y_pred - settings.networks.teacher[0](x)), axis=-1)

    return cl.wrappers.OnInputs(consistency)


WAYS = [
    by_closure,
    by_method,
    by_partial,
    by_global,
    by_default,
    by_inner_function,
    by_attribute_of_attribute,
]


@pytest.mark.parametrize("way", WAYS)
def test_a_mean_teacher(way):
    """The teacher's weights follow the student's, and the term reads their current values."""
    teacher, student = network(seed=1), network(cl.Sequential, seed=2)
    loss = cl.CompositeLoss({"mse": "mse", "consistency": way(teacher)}, {"consistency": 0.1})
    student.compile(sgd(0.1), loss=loss)

    def act(model):
        pairs = zip(teacher.weights, model.weights, strict=False)
        for mean, new in pairs:
            mean.assign(0.5 * ops.convert_to_tensor(mean) + 0.5 * ops.convert_to_tensor(new))
        x = ops.convert_to_tensor(X)
        return distance(teacher(x), model(x))

    history, expected = train(student, act)
    assert history["consistency_loss"] == pytest.approx(expected, rel=1e-4)
    assert len(set(np.round(expected, 6))) == 3, "it moves"


@pytest.mark.parametrize("way", WAYS)
def test_a_teacher_is_not_trained(way):
    teacher, student = network(seed=1), network(cl.Sequential, seed=2)
    before = teacher.get_weights()
    loss = cl.CompositeLoss({"mse": "mse", "consistency": way(teacher)})
    student.compile(keras.optimizers.Adam(0.1), loss=loss)
    student.fit(X, Y, epochs=2, verbose=0)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    of_teacher = {id(v) for v in teacher.variables}
    assert not of_teacher & {id(v) for v in student.trainable_variables}
    assert of_teacher <= {id(v) for v in student.non_trainable_variables}
    assert len(student.get_weights()) == 2


def test_a_critic_trained_in_turn():
    """Both are tracked, and each is read by the other's loss."""
    critic = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    generator = network(cl.Sequential, seed=2)

    def fools(y_pred):
        return ops.mean(critic(y_pred), axis=-1)

    generator.compile(sgd(0.1), loss=cl.CompositeLoss({"g": cl.wrappers.PredictionOnly(fools)}))

    def tells(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) + 0 * ops.mean(generator(X))

    critic.compile(sgd(0.1), loss=cl.CompositeLoss({"c": tells}))
    values = []
    for _ in range(3):
        expected = np.mean(critic.predict(generator.predict(X, verbose=0), verbose=0))
        logs = generator.fit(X, batch_size=8, verbose=0).history
        values.append((logs["g_loss"][0], expected))
        fake = generator.predict(X, verbose=0)
        critic.fit(fake, np.zeros((8, 1), "float32"), batch_size=8, verbose=0)
    found, expected = zip(*values, strict=True)
    assert found == pytest.approx(expected, rel=1e-4)
    assert len(set(np.round(found, 6))) == 3


def test_a_variable():
    margin = keras.Variable(1.0)

    def term(y_true, y_pred):
        return margin * ops.mean(ops.square(y_true - y_pred), axis=-1)

    model = network(cl.Sequential)
    model.compile(sgd(FROZEN), loss=cl.CompositeLoss({"term": term}))
    base = distance(model.predict(X, verbose=0), Y)

    def act(model):
        margin.assign(margin + 1.0)
        return float(ops.convert_to_numpy(margin.value)) * base

    history, expected = train(model, act)
    assert history["term_loss"] == pytest.approx(expected, rel=1e-4)


def test_a_seed():
    """Each step draws anew."""
    seed = keras.random.SeedGenerator(7)

    def noisy(y_true, y_pred):
        noise = keras.random.normal(ops.shape(y_pred), seed=seed)
        return ops.mean(ops.square(y_true - y_pred + noise), axis=-1)

    model = network(cl.Sequential)
    model.compile(sgd(FROZEN), loss=cl.CompositeLoss({"noisy": noisy}))
    history = model.fit(X, Y, batch_size=8, epochs=4, verbose=0).history
    assert len(set(np.round(history["noisy_loss"], 6))) == 4


class Distillation(keras.losses.Loss):
    """A loss of the user's that holds its teacher."""

    def __init__(self, teacher):
        super().__init__(name="distillation")
        self.teacher = teacher

    def call(self, y_true, y_pred):
        return ops.mean(ops.square(y_pred - self.teacher(y_true)), axis=-1)


def test_a_teacher_in_a_loss_of_the_user():
    teacher, student = network(seed=1), network(cl.Sequential, seed=2)
    student.compile(sgd(FROZEN), loss=cl.CompositeLoss({"d": Distillation(teacher)}))

    def act(model):
        for weight in teacher.weights:
            weight.assign(0.5 * ops.convert_to_tensor(weight))
        x = ops.convert_to_tensor(X)
        return distance(teacher(x), model(x))

    step = Step(act)
    how = {"batch_size": 8, "epochs": 3, "verbose": 0, "callbacks": [step]}
    history = student.fit(X, X, **how).history
    assert history["d_loss"] == pytest.approx(step.found, rel=1e-4)


def test_a_layer_of_the_model_itself_is_trained():
    model = network(cl.Sequential)

    def ridge(y_pred):
        return ops.mean(ops.square(model.layers[0].kernel)) + 0 * ops.mean(y_pred, axis=-1)

    model.compile(sgd(0.1), loss=cl.CompositeLoss({"r": cl.wrappers.PredictionOnly(ridge)}))
    before = model.get_weights()[0]
    model.fit(X, batch_size=8, verbose=0)
    np.testing.assert_allclose(model.get_weights()[0], before * (1 - 0.1 * 2 / 6), rtol=1e-5)


# Given by `models=`: saved with the model, once.


@keras.saving.register_keras_serializable("tests_owned")
def distilled(model, x, y, y_pred, teacher):
    return ops.mean(ops.square(y_pred - teacher(x)), axis=-1)


def test_distillation_with_a_teacher_that_is_saved_with_the_model(tmp_path):
    teacher, student = network(seed=1), network(cl.Sequential, seed=2)
    term = cl.wrappers.OnInputs(distilled, models=[teacher])
    student.compile(sgd(0.1), loss=cl.CompositeLoss({"mse": "mse", "d": term}))
    student.fit(X, Y, batch_size=8, verbose=0)
    before = student.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
    assert before["d_loss"] == pytest.approx(
        distance(student.predict(X, verbose=0), teacher.predict(X, verbose=0)), rel=1e-4
    )
    student.save(tmp_path / "student.keras")
    for weight in teacher.weights:  # the loaded one has its own
        weight.assign(0.0 * ops.convert_to_tensor(weight))
    again = keras.models.load_model(tmp_path / "student.keras")
    after = again.evaluate(X, Y, batch_size=8, verbose=0, return_dict=True)
    assert after == pytest.approx(before, rel=1e-5)
    again.fit(X, Y, batch_size=8, verbose=0)


def test_a_callback_may_look_at_the_teacher_alone():
    """JAX's state must be back in the variables even if the callback never asks for its model."""
    teacher, student = network(seed=1), network(cl.Sequential, seed=2)
    term = cl.wrappers.OnInputs(distilled, models=[teacher])
    student.compile(sgd(FROZEN), loss=cl.CompositeLoss({"d": term}))
    expected = []

    class Halve(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernel = teacher.layers[0].kernel
            expected.append(distance(before, teacher(ops.convert_to_tensor(X))))
            kernel.assign(0.5 * ops.convert_to_tensor(kernel))
            assert len(teacher.get_weights()) == 2

    before = student.predict(X, verbose=0)
    how = {"batch_size": 8, "epochs": 3, "verbose": 0, "callbacks": [Halve()]}
    history = student.fit(X, Y, **how).history
    assert history["d_loss"] == pytest.approx([float(e) for e in expected], rel=1e-4)
    assert len(set(np.round(history["d_loss"], 6))) == 3


def test_a_teacher_without_variables():
    teacher = keras.Sequential([keras.layers.Dense(2)])
    student = network(cl.Sequential, seed=2)
    term = cl.wrappers.OnInputs(distilled, models=[teacher])
    student.compile(sgd(0.1), loss=cl.CompositeLoss({"d": term}))
    if keras.backend.backend() != "jax":
        assert np.isfinite(student.fit(X, Y, verbose=0).history["d_loss"][0])
        return
    with pytest.raises(ValueError, match=r"no variables yet.*keras.Input.*Received: "):
        student.fit(X, Y, verbose=0)


def test_two_terms_share_a_teacher(tmp_path):
    """After loading, both terms still hold one teacher."""
    teacher, student = network(seed=1), network(cl.Sequential, seed=2)
    terms = {name: cl.wrappers.OnInputs(distilled, models=[teacher]) for name in "de"}
    student.compile(sgd(0.1), loss=cl.CompositeLoss(terms))
    before = student.evaluate(X, Y, verbose=0, return_dict=True)
    student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    assert again.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(before, rel=1e-5)
    first, second = (again.loss.losses[name].models[0] for name in "de")
    assert first is second


def as_layer():
    x, teacher = keras.Input((3,)), network(seed=1)
    return cl.Model(x, keras.layers.Dense(2)(teacher(x))), teacher


def of_one_layer():
    x = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="shared")(x)
    return cl.Model(x, keras.layers.Dense(2)(hidden)), keras.Model(x, keras.layers.Dense(2)(hidden))


@pytest.mark.parametrize("build", [as_layer, of_one_layer])
def test_a_teacher_that_is_part_of_the_model(build, tmp_path):
    """After loading the numbers are the same, but the teacher is a copy: saving warns of it."""
    student, teacher = build()
    term = cl.wrappers.OnInputs(distilled, models=[teacher])
    student.compile(sgd(0.1), loss=cl.CompositeLoss({"d": term}))
    student.fit(X, Y, batch_size=8, verbose=0)
    before = student.evaluate(X, Y, verbose=0, return_dict=True)
    with pytest.warns(UserWarning, match="part of the trained model.*a network of its own"):
        student.save(tmp_path / "student.keras")
    again = keras.models.load_model(tmp_path / "student.keras")
    assert again.evaluate(X, Y, verbose=0, return_dict=True) == pytest.approx(before, rel=1e-5)
    again.fit(X, Y, batch_size=8, verbose=0)


def test_weights_of_other_models_are_refused(tmp_path):
    student = network(cl.Sequential, seed=2)
    term = cl.wrappers.OnInputs(distilled, models=[network(seed=1)])
    student.compile(sgd(0.1), loss=cl.CompositeLoss({"d": term}))
    student.save_weights(tmp_path / "some.weights.h5")
    deeper = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    term = cl.wrappers.OnInputs(distilled, models=[deeper])
    student.compile(sgd(0.1), loss=cl.CompositeLoss({"d": term}))
    with pytest.raises(ValueError, match=r"have 4 variables.*Received: "):
        student.load_weights(tmp_path / "some.weights.h5")


@pytest.mark.parametrize("bad", [[], [3], "teacher", network])
def test_models_are_a_list_of_models(bad):
    with pytest.raises(ValueError, match=r"`models` of OnInputs.*Received: "):
        cl.wrappers.OnInputs(distilled, models=bad)


def test_a_function_that_does_not_take_the_models():
    with pytest.raises(ValueError, match=r"f\(model, x, y, y_pred, \*models\)"):
        cl.wrappers.OnInputs(of_global, models=[network()])


# A variable that cannot be found is not frozen without a warning.

HIDDEN = {"in": {}}


def look_up():
    return HIDDEN["in"]["teacher"]


class Hidden:
    """Holds a variable in a slot, where the search through attributes does not find it."""

    __slots__ = ("variable",)


def of_hidden(y_true, y_pred):
    return look_up().variable * ops.mean(ops.square(y_true - y_pred), axis=-1)


def test_what_belongs_to_nobody_is_reported():
    hidden = Hidden()
    hidden.variable = keras.Variable(2.0, name="hidden")
    HIDDEN["in"]["teacher"] = hidden
    model = network(cl.Sequential)
    model.compile(sgd(FROZEN), loss=cl.CompositeLoss({"odd": of_hidden}))
    if keras.backend.backend() != "jax":
        model.fit(X, Y, verbose=0)  # it is read in every step, or by the graph
        return
    with pytest.warns(UserWarning, match="'odd' reads 'hidden', which belongs to neither"):
        model.fit(X, Y, verbose=0)
    assert "value" in vars(keras.Variable) or "value" in dir(keras.Variable)
