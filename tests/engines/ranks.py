"""What each of two ranks of torch does: every case by both together, beside one device on all.

    RANK=0 PORT=29500 python -m tests.engines.ranks CASES     (and RANK=1 at the same time)

CASES is a name of `GROUPS`. Prints a line for each case that differs by more than 1e-5, and `done`
with the number of cases. Both ranks have all data; the part of rank 0 is the first `CUT` samples.
"""

import contextlib
import datetime
import itertools
import os
import sys
import warnings

import keras
import numpy as np
import torch

import combined_losses as cl
from tests.contracts.registry import CASES, VARIANTS
from tests.weightings.gradients import PLAIN as GRADIENT_RULES
from tests.weightings.rules import PLAIN as RULES

CUT, STEPS = 3, 3
TOLERANCE = 1e-5


def parts_of(count):
    """The rows of this rank."""
    return slice(0, CUT) if torch.distributed.get_rank() == 0 else slice(CUT, count)


def close(found, expected):
    scale = max(1.0, *(float(np.abs(e).max(initial=0)) for e in expected))
    pairs = zip(found, expected, strict=True)
    return max(float(np.abs(np.asarray(a) - e).max(initial=0)) for a, e in pairs) / scale


# One loss: value and gradient.


def value_and_slope(loss, y_true, y_pred, weight):
    y_pred = torch.tensor(y_pred, requires_grad=True)
    weight = None if weight is None else torch.tensor(weight)
    value = loss(torch.tensor(y_true), y_pred, weight)
    (slope,) = torch.autograd.grad(value, y_pred, materialize_grads=True)
    return float(value.detach()), slope.numpy()


def difference_of_loss(case, arguments, weighted):
    count = len(case.y_pred)
    weight = np.linspace(0.2, 1.5, count).astype("float32") if weighted else None
    with cl.distributed(False):
        expected, slope = value_and_slope(case.make(**arguments), case.y_true, case.y_pred, weight)
    rows = parts_of(count)
    part = None if weight is None else weight[rows]
    found, own = value_and_slope(case.make(**arguments), case.y_true[rows], case.y_pred[rows], part)
    # The gradient is the number of ranks times the share of the rank: DDP takes the average.
    return close([found, own / 2], [expected, slope[rows]])


def difference_of_components():
    """`components` too gives each rank the values of the whole batch."""
    x, y, weight = data()
    pred = x[:, :3]
    with cl.distributed(False):
        expected = composite(None).components(y, pred, weight)
    rows = parts_of(8)
    found = composite(None).components(y[rows], pred[rows], weight[rows])
    return close([float(v) for v in found.values()], [float(v) for v in expected.values()])


def losses():
    yield "components", difference_of_components()
    for case in (*CASES, *VARIANTS):
        for arguments in ({}, case.arguments):
            for weighted in (False, True):
                name = f"{case.name}, {'all' if arguments else 'no'} arguments"
                yield (
                    f"{name}{', weights' if weighted else ''}",
                    difference_of_loss(case, arguments, weighted),
                )


# Rules, in a loop and in `fit`: the weights of the network, and the logs.


def data(factor=1.0):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 4)).astype("float32") * np.float32(factor)
    y = rng.normal(size=(8, 3)).astype("float32")
    y[:CUT][rng.random((CUT, 3)) < 0.6] = np.nan  # on rank 0 most labels are missing
    return x, y, rng.uniform(0.2, 1.5, 8).astype("float32")


def composite(rule):
    parts = {"squared": cl.wrappers.Masked("mse"), "absolute": cl.wrappers.Masked("mae")}
    parts["under"] = cl.wrappers.Masked(cl.losses.UnderestimationPenalty())
    return cl.CompositeLoss(parts, weights={"absolute": 0.5}, weighting=rule)


def network():
    keras.utils.set_random_seed(1)
    dense = keras.layers.Dense(5, activation="tanh", kernel_regularizer="l2")
    return cl.Sequential([keras.Input((4,)), dense, keras.layers.Dense(3)])


def looped(make_rule, rows, parallel, factor=1.0):
    model, loss, values = network(), composite(make_rule()), []
    trained = torch.nn.parallel.DistributedDataParallel(model) if parallel else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y, weight = (torch.tensor(array[rows]) for array in data(factor))
    for _ in range(STEPS):
        optimizer.zero_grad()
        with loss.training_step():
            value = loss(y, trained(x), weight)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    weights = [parameter.detach().numpy() for parameter in model.parameters()]
    return [*values, *weights, *loss.weights.values()]


def fitted(make_rule, rows, parallel, factor=1.0):
    if parallel and torch.distributed.get_rank() == 1:
        keras.utils.set_random_seed(9)  # the weights of rank 0 must be sent
    model = network()
    if parallel and torch.distributed.get_rank() == 1:
        for variable in model.weights:
            variable.assign(variable + 1.0)
    model.compile(keras.optimizers.SGD(0.1), loss=composite(make_rule()))
    x, y, weight = (array[rows] for array in data(factor))
    history = model.fit(
        *(x, y),
        sample_weight=weight,
        validation_data=(x, y, weight),
        batch_size=8,
        epochs=STEPS,
        verbose=0,
    ).history
    logs = [number for key in sorted(history) for number in history[key]]
    return [*logs, *model.get_weights(), *model.evaluate(x, y, verbose=0)]


def difference_of_training(way, make_rule):
    """The difference, less what two roundings of the data in float32 do on one device.

    The equations of `IMTLG`, for one, are ill conditioned where gradients are nearly parallel.
    """
    with cl.distributed(False):
        expected = way(make_rule, slice(None), False)
        moved = way(make_rule, slice(None), False, 1 + 2 * np.finfo("float32").eps)
    found = way(make_rule, parts_of(8), True)
    return close(found, expected) - close(moved, expected), found


def rules(way, places=("output",)):
    plain = {cls.__name__: make for cls, make in {**RULES, **GRADIENT_RULES}.items()}
    for name, make in {"no rule": lambda: None, **plain}.items():
        reads = any(cls.__name__ == name for cls in GRADIENT_RULES)
        for place in places if reads else (None,):
            given = {} if place is None or not reads else {"gradients": place}
            make_rule = lambda make=make, given=given: make(**given)  # noqa: E731
            difference, found = difference_of_training(way, make_rule)
            yield f"{way.__name__} {name} {place or ''}", max(difference, not_alike(found))


def not_alike(found):
    """0 if both ranks have the same bits, else infinity."""
    flat = torch.tensor(np.concatenate([np.ravel(np.float64(each)) for each in found]))
    other = [torch.empty_like(flat) for _ in range(2)]
    torch.distributed.all_gather(other, flat)
    return 0.0 if torch.equal(other[0], other[1]) else float("inf")


GROUPS = {
    "losses": losses,
    "loops": lambda: rules(looped),
    "fits": lambda: rules(fitted, ("output", "parameters")),
}
GROUPS["all"] = lambda: itertools.chain(*(GROUPS[name]() for name in ("losses", "loops", "fits")))


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{os.environ['PORT']}",
        rank=int(os.environ["RANK"]),
        world_size=2,
        timeout=datetime.timedelta(seconds=60),
    )
    count = 0
    for name, difference in GROUPS[sys.argv[1]]():
        count += 1
        if not difference <= TOLERANCE:
            print(f"{name}: {difference:.1e}", flush=True)
    print(f"done {count}", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        main()
