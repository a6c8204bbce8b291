"""`set_weight` from another thread while a model trains."""

import threading

import keras
import numpy as np
import pytest

import combined_losses as cl
from tests.training.tiny import arrays, line, sgd


class AskElsewhere(keras.callbacks.Callback):
    """Acts in the middle of a batch, in another thread, and waits until that has ended."""

    def __init__(self, act):
        super().__init__()
        self.act, self.found = act, []

    def on_train_batch_begin(self, batch, logs=None):
        thread = threading.Thread(target=lambda: self.found.append(self.act(batch)))
        thread.start()
        thread.join()


def fit(act, loss, **kwargs):
    model = line()
    model.compile(sgd(0.1), loss=loss)
    x, y = arrays(20)
    asked = AskElsewhere(act)
    how = {"batch_size": 5, "epochs": 2, "shuffle": False, "verbose": 0, **kwargs}
    history = model.fit(x, y, callbacks=[asked], **how).history
    return model, history, asked.found


class SetHere(keras.callbacks.Callback):
    def __init__(self, act):
        super().__init__()
        self.act = act

    def on_train_batch_begin(self, batch, logs=None):
        self.act(batch)


@pytest.mark.parametrize("name", ["mae", "inner/huber"])
def test_it_acts_on_the_next_step(name):
    """As `set_weight` of a callback does: the change is asked for before the step begins."""

    def composite():
        inner = cl.CompositeLoss({"huber": keras.losses.Huber(0.5)})
        return cl.CompositeLoss({"mse": "mse", "mae": "mae", "inner": inner})

    first = composite()
    model, history, _ = fit(lambda batch: first.set_weight(name, 0.5 + batch), first)
    second = composite()
    other = line()
    other.compile(sgd(0.1), loss=second)
    here = SetHere(lambda batch: second.set_weight(name, 0.5 + batch))
    how = {"batch_size": 5, "epochs": 2, "shuffle": False, "verbose": 0, "callbacks": [here]}
    expected = other.fit(*arrays(20), **how).history
    for key, values in expected.items():
        assert history[key] == pytest.approx(values, rel=1e-5), key
    for mine, theirs in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5)


def test_many_threads_at_any_time():
    """Changes fall anywhere in steps; the last one holds in the end."""
    loss = cl.CompositeLoss(["mse", "mae"])
    model = line()
    model.compile(sgd(0.001), loss=loss)
    stop = threading.Event()

    def change():
        number = 0
        while not stop.is_set():
            number += 1
            loss.set_weight("mae", 0.1 + number % 7)
            stop.wait(0.002)

    threads = [threading.Thread(target=change) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        history = model.fit(*arrays(50), batch_size=2, epochs=4, verbose=0).history
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert np.all(np.isfinite(history["loss"]))
    loss.set_weight("mae", 0.25)
    assert loss.weights["mae"] == 0.25


RUNS = {
    "evaluate": lambda model, x, y: model.evaluate(x, y, batch_size=2, verbose=0),
    "predict": lambda model, x, y: model.predict(x, batch_size=2, verbose=0),
    "train_on_batch": lambda model, x, y: [model.train_on_batch(x, y) for _ in range(20)],
    "test_on_batch": lambda model, x, y: [model.test_on_batch(x, y) for _ in range(20)],
}


@pytest.mark.parametrize("run", RUNS)
def test_other_ways_to_run(run):
    """Reading the weights is enough to bring JAX's state back in the middle of a step."""
    loss = cl.CompositeLoss(["mse", "mae"])
    model = line()
    model.compile(sgd(0.001), loss=loss)
    x, y = arrays(50)
    model.fit(x, y, verbose=0)
    stop, trouble, seen = threading.Event(), [], []

    def change():
        while not stop.is_set():
            try:
                loss.set_weight("mae", 0.1 + len(seen) % 7)
                seen.append(loss.weights["mae"])
            except Exception as error:
                trouble.append(error)
            stop.wait(0.002)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(3):
            RUNS[run](model, x, y)
    finally:
        stop.set()
        thread.join()
    assert trouble == []
    assert seen
    loss.set_weight("mae", 0.25)
    assert loss.weights["mae"] == 0.25


def test_weights_can_be_read_elsewhere():
    loss = cl.CompositeLoss(["mse", "mae"])

    def act(batch):
        loss.set_weight("mae", float(batch))
        return loss.weights["mae"]

    _, _, found = fit(act, loss, epochs=1)
    assert found == [0.0, 1.0, 2.0, 3.0]


def test_a_wrong_name_or_number_is_said_at_once():
    loss = cl.CompositeLoss(["mse", "mae"])

    def act(batch):
        with pytest.raises(ValueError, match="no component"):
            loss.set_weight("typo", 1.0)
        with pytest.raises(ValueError, match="finite number"):
            loss.set_weight("mae", float("nan"))
        return True

    _, _, found = fit(act, loss, epochs=1)
    assert found == [True] * 4


def test_what_comes_after_the_last_step_is_done():
    loss = cl.CompositeLoss(["mse", "mae"])

    class AtTheEnd(AskElsewhere):
        on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin

        def on_train_end(self, logs=None):
            AskElsewhere.on_train_batch_begin(self, 0)

    model = line()
    model.compile(sgd(0.1), loss=loss)
    model.fit(*arrays(20), verbose=0, callbacks=[AtTheEnd(lambda _: loss.set_weight("mae", 9.0))])
    assert loss.weights["mae"] == 9.0
