"""A rank of torch.distributed: `RANK=0 RANKS=2 PORT=29500 python -m tests.engines.ranks 0 losses`.

All ranks have all data, of which each takes its part.
"""

import datetime
import os
import warnings

import keras
import numpy as np
import torch

import combined_losses as cl
from tests.engines import cases
from tests.engines.cases import CUT, STEPS, composite, data, network


def own_rows(count, split="uneven"):
    """The rows of this rank, of two."""
    cut = 0 if split == "empty" else CUT
    return slice(0, cut) if torch.distributed.get_rank() == 0 else slice(cut, count)


def step(make, y_true, y_pred, weight):
    loss, y_pred = make(), torch.tensor(y_pred, requires_grad=True)
    weight = None if weight is None else torch.tensor(weight)
    with cases.step_of(loss):
        value = loss(torch.tensor(y_true), y_pred, weight)
    (slope,) = torch.autograd.grad(value, y_pred, materialize_grads=True)
    return [float(value.detach()), *cases.state_of(loss)], slope.numpy()


class Ranks(cases.Engine):
    splits = ("uneven", "empty")

    def __init__(self):
        self.process = torch.distributed.get_rank()
        self.processes = torch.distributed.get_world_size()

    def alone(self, make, *data):
        with cl.distributed(False):
            return step(make, *data)

    def together(self, make, split, *data):
        rows = own_rows(len(data[0]), split)
        parts = (None if array is None else array[rows] for array in data)
        numbers, slope = step(make, *parts)
        # The number of ranks times the share of this one: DDP takes the average.
        return numbers, slope / self.processes, rows

    def train(self, way, make_rule, is_together, factor=1.0):
        rows = own_rows(8) if is_together else slice(None)
        with cl.distributed(None if is_together else False):
            if way == "looped":
                return looped(make_rule, rows, is_together, factor)
            return fitted(way, make_rule, rows, is_together, factor)

    def not_alike(self, arrays):
        flat = torch.tensor(np.concatenate([np.ravel(np.float64(each)) for each in arrays]))
        others = [torch.empty_like(flat) for _ in range(self.processes)]
        torch.distributed.all_gather(others, flat)
        return 0.0 if all(torch.equal(other, flat) for other in others) else float("inf")


def looped(make_rule, rows, is_together, factor):
    model, loss, values = network(), composite(make_rule()), []
    trained = torch.nn.parallel.DistributedDataParallel(model) if is_together else model
    learned = [variable.value for variable in loss.trainable_variables]
    optimizer = torch.optim.SGD([*model.parameters(), *learned], lr=0.1)
    x, y, weight = (torch.tensor(array[rows]) for array in data(factor=factor))
    for _ in range(STEPS):
        optimizer.zero_grad()
        with loss.training_step():
            value = loss(y, trained(x), weight)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    weights = [parameter.detach().numpy() for parameter in model.parameters()]
    return [*values, *weights, *cases.state_of(loss)]


def fitted(way, make_rule, rows, is_together, factor):
    model = network()
    if is_together and torch.distributed.get_rank() == 1:
        keras.utils.set_random_seed(9)  # the weights of rank 0 must be sent
        for variable in model.weights:
            variable.assign(variable + 1.0)
    parts = tuple(array[rows] for array in data(factor=factor))
    return cases.FITS[way](model, composite(make_rule()), parts)


def components(engine):
    """`components` too gives each rank the values of the whole batch."""
    x, y, weight = data()
    pred = x[:, :3]

    def differs():
        with cl.distributed(False):
            expected = composite(None).components(y, pred, weight)
        rows = own_rows(8)
        found = composite(None).components(y[rows], pred[rows], weight[rows])
        pair = ([float(value) for value in values.values()] for values in (found, expected))
        return cases.difference(*pair)

    yield "components", differs


def begin():
    """The engine of this process."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{os.environ['PORT']}",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["RANKS"]),
        timeout=datetime.timedelta(seconds=60),
    )
    return Ranks()


if __name__ == "__main__":
    cases.GROUPS["components"] = components
    cases.main(begin())
    torch.distributed.destroy_process_group()
