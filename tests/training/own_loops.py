"""Loops of training that a user writes, one for each framework, around a `CompositeLoss`.

A loop is `train(model, loss, optimizer, batches)`; `LOOPS` has those of the backend in use.
"""

import keras


def torch_loop(model, loss, optimizer, batches):
    import torch

    variables = [*model.trainable_variables, *loss.trainable_variables]
    for x, y in batches:
        with loss.training_step():
            total = loss(y, model(x, training=True))
        total.backward()
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in variables], variables)
        for variable in variables:
            variable.value.grad = None


def tensorflow_loop(model, loss, optimizer, batches, wrap=lambda step: step):
    import tensorflow as tf

    variables = [*model.trainable_variables, *loss.trainable_variables]
    optimizer.build(variables)

    @wrap
    def step(x, y):
        with tf.GradientTape() as tape, loss.training_step():
            total = loss(y, model(x, training=True))
        optimizer.apply(tape.gradient(total, variables), variables)

    for x, y in batches:
        step(tf.constant(x), tf.constant(y))


def tensorflow_function_loop(model, loss, optimizer, batches):
    import tensorflow as tf

    tensorflow_loop(model, loss, optimizer, batches, tf.function)


def jax_loop(model, loss, optimizer, batches, wrap=None):
    import jax

    variables = [*model.trainable_variables, *loss.trainable_variables]
    others = [*model.non_trainable_variables, *loss.non_trainable_variables]
    optimizer.build(variables)

    def total(trainable, rest, x, y):
        values = [*zip(variables, trainable, strict=True), *zip(others, rest, strict=True)]
        with keras.StatelessScope(state_mapping=values) as scope, loss.training_step():
            value = loss(y, model(x, training=True))
        return value, [scope.get_current_value(v) for v in others]

    def step(trainable, rest, state, x, y):
        gradients, rest = jax.grad(total, has_aux=True)(trainable, rest, x, y)
        return *optimizer.stateless_apply(state, gradients, trainable), rest

    step = (wrap or jax.jit)(step)
    trainable, rest, state = (
        [v.value for v in vs] for vs in (variables, others, optimizer.variables)
    )
    for x, y in batches:
        trainable, state, rest = step(trainable, rest, state, x, y)
    for variable, value in zip([*variables, *others], [*trainable, *rest], strict=True):
        variable.assign(value)


def jax_eager_loop(model, loss, optimizer, batches):
    jax_loop(model, loss, optimizer, batches, lambda step: step)


LOOPS = {
    "torch": [torch_loop],
    "tensorflow": [tensorflow_loop, tensorflow_function_loop],
    "jax": [jax_loop, jax_eager_loop],
}[keras.backend.backend()]
