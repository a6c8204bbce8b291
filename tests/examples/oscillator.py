"""How do I fit a curve to a few points and to the equation that it obeys? A damped oscillator.

u'' + 2 d u' + k u = 0 with u(0) = 1, u'(0) = 0; ten measurements cover the first third only. In the
other two thirds the error is less than a tenth of that of the fit without the equation.
"""

import keras
import numpy as np
from keras import layers, ops

import combined_losses as cl

D, K = 2.0, 100.0


def exact(t):
    frequency = np.sqrt(K - D**2)
    return np.exp(-D * t) * (np.cos(frequency * t) + D / frequency * np.sin(frequency * t))


def equation(model, t, y, u):
    du, ddu = cl.input_gradients(model, t), cl.input_gradients(model, t, order=2)
    return ((ddu + 2 * D * du + K * u) / K) ** 2


def start(model, t, y, u):
    zero = ops.zeros((1, 1))
    return ops.sum((model(zero) - 1) ** 2 + cl.input_gradients(model, zero) ** 2 / K)


def fit(loss, t, y, seed, steps):
    keras.utils.set_random_seed(seed)
    hidden = [layers.Dense(32, activation="tanh") for _ in range(2)]
    first = layers.Rescaling(6.0, offset=-3.0)
    model = cl.Sequential([keras.Input((1,)), first, *hidden, layers.Dense(1)])
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(keras.optimizers.Adam(rate), loss=loss)
    # All points in every step, many steps in an epoch.
    model.fit(np.tile(t, (steps, 1)), np.tile(y, (steps, 1)), len(t), shuffle=False, verbose=0)
    return model


def main(seed=0, steps=700):
    t = np.linspace(0, 1, 61, dtype="float32")[:, None]
    measured = np.arange(len(t)) % 2 == 0
    measured[20:] = False
    y = np.where(measured[:, None], exact(t), np.nan)
    data = cl.wrappers.Masked("mse")
    terms = {"data": data, "equation": cl.wrappers.OnInputs(equation)}
    terms["start"] = cl.wrappers.OnInputs(start)
    physics = fit(cl.CompositeLoss(terms), t, y, seed, steps)
    plain = fit(cl.CompositeLoss({"data": data}), t, y, seed, steps)

    def error(model):
        difference = keras.ops.convert_to_numpy(model(t)) - exact(t)
        return float(np.sqrt(np.mean(difference[20:] ** 2)))

    return {"data only": error(plain), "with the equation": error(physics)}


if __name__ == "__main__":
    print(main())
