"""Devices of JAX, which CPUs simulate: of one process, or of several.

    KIND=data python -m tests.engines.devices 0 losses

KIND is "data" or "model". XLA_FLAGS says how many devices there are, as in `starting.simulated`;
with ADDRESSES and PROCESS it is one process of several.
"""

import os
import warnings

import jax
import keras
import numpy as np

import combined_losses as cl
from tests.engines import cases
from tests.engines.cases import STEPS, composite, data, network


def step(loss, arrays, sharding=None):
    """The numbers and the slope of a step, compiled, with its result on all devices."""
    variables = loss.variables if isinstance(loss, cl.CompositeLoss) else []

    def run(values, y_true, y_pred, *weight):
        def total(y_pred):
            mapping = list(zip(variables, values, strict=True))
            with keras.StatelessScope(state_mapping=mapping) as scope, cases.step_of(loss):
                number = loss(y_true, y_pred, *weight)
            return number, [scope.get_current_value(v) for v in variables]

        return jax.value_and_grad(total, has_aux=True)(y_pred)

    given = [v.value for v in variables]
    (number, after), slope = jax.jit(run, out_shardings=sharding)(given, *arrays)
    for variable, value in zip(variables, after, strict=True):
        variable.assign(value)
    return [float(number), *cases.state_of(loss)], np.asarray(slope)


class Devices(cases.Engine):
    """
    Args:
        distribution: a distribution of Keras.
        shards: how many parts of a batch there are.
    """

    splits = ("even",)  # an array on several devices has equal parts

    def __init__(self, distribution, shards):
        self.distribution, self.shards = distribution, shards
        self.mesh = distribution.device_mesh.backend_mesh
        self.process, self.processes = jax.process_index(), jax.process_count()
        self.on_all = jax.sharding.NamedSharding(self.mesh, jax.sharding.PartitionSpec())

    def scope(self):
        return self.distribution.scope()

    def used(self, rows):
        return rows // self.shards * self.shards

    def alone(self, make, *data):
        keras.distribution.set_distribution(None)
        return step(make(), [array for array in data if array is not None])

    def together(self, make, split, *data):
        keras.distribution.set_distribution(self.distribution)
        arrays = [self.distributed(array) for array in data if array is not None]
        numbers, slope = step(make(), arrays, self.on_all)
        return numbers, slope, slice(None)

    def distributed(self, array):
        """The array on all devices, of which this process gives its rows."""
        names = ["batch", *[None] * (array.ndim - 1)]
        if "model" in self.mesh.axis_names and array.ndim > 1 and array.shape[-1] % 2 == 0:
            names[-1] = "model"
        spec = jax.sharding.PartitionSpec(*names)
        sharding = jax.sharding.NamedSharding(self.mesh, spec)
        return jax.make_array_from_process_local_data(sharding, array[self.own(len(array))])

    def own(self, rows):
        """The rows of this process."""
        share = rows // self.processes
        return slice(share * self.process, share * (self.process + 1))

    def train(self, way, make_rule, is_together, factor=1.0):
        keras.distribution.set_distribution(self.distribution if is_together else None)
        model, loss, arrays = network(), composite(make_rule()), data(factor=factor)
        if way == "looped":
            arrays = [self.distributed(a) if is_together else a for a in arrays]
            return looped(model, loss, arrays)
        count = self.processes if is_together else 1
        rows = self.own(8) if is_together else slice(None)
        parts = tuple(array[rows] for array in arrays)
        return cases.FITS[way](model, loss, parts, batch_size=8 // count)

    def not_alike(self, arrays):
        if self.processes == 1:
            return 0.0
        from jax.experimental import multihost_utils

        flat = np.concatenate([np.ravel(np.float32(each)) for each in arrays]).view("int32")
        others = np.asarray(multihost_utils.process_allgather(flat))
        return 0.0 if (others == flat).all() else float("inf")


def looped(model, loss, data):
    variables = [*model.trainable_variables, *loss.trainable_variables]
    others = [*model.non_trainable_variables, *loss.non_trainable_variables]
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.build(variables)

    def total(trainable, rest, x, y, weight):
        values = [*zip(variables, trainable, strict=True), *zip(others, rest, strict=True)]
        with keras.StatelessScope(state_mapping=values) as scope, loss.training_step():
            value = loss(y, model(x, training=True), weight)
        return value, [scope.get_current_value(v) for v in others]

    @jax.jit
    def step(trainable, rest, state, *data):
        grad = jax.value_and_grad(total, has_aux=True)
        (value, rest), gradients = grad(trainable, rest, *data)
        return value, rest, *optimizer.stateless_apply(state, gradients, trainable)

    trainable, rest, state = (
        [v.value for v in some] for some in (variables, others, optimizer.variables)
    )
    values = []
    for _ in range(STEPS):
        value, rest, trainable, state = step(trainable, rest, state, *data)
        values.append(float(value))
    for variable, value in zip([*variables, *others], [*trainable, *rest], strict=True):
        variable.assign(value)
    return [*values, *model.get_weights(), *cases.state_of(loss)]


def begin():
    """The engine of this process."""
    warnings.simplefilter("ignore")
    if "PROCESS" in os.environ:
        addresses = os.environ["ADDRESSES"]
        count = len(addresses.split(","))
        keras.distribution.initialize(addresses, count, int(os.environ["PROCESS"]))
    devices, data_parallel = keras.distribution.list_devices(), keras.distribution.DataParallel
    if os.environ["KIND"] == "data":
        return Devices(data_parallel(devices=devices, auto_shard_dataset=False), len(devices))
    shards = len(devices) // 2
    mesh = keras.distribution.DeviceMesh((shards, 2), ["batch", "model"], devices=devices)
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*hidden/kernel"] = (None, "model")
    layout[".*hidden/bias"] = ("model",)
    distribution = keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch")
    return Devices(distribution, shards)


if __name__ == "__main__":
    cases.main(begin())
