"""The work of a composite grows with its parts, not with their square: calls of Python, counted."""

import cProfile
import pstats

import numpy as np
import pytest

import combined_losses as cl

Y_TRUE, Y_PRED = np.zeros((4, 3), "float32"), np.ones((4, 3), "float32")


def with_parts(n):
    return cl.CompositeLoss({f"part_{index}": "mse" for index in range(n)})


def nested(levels):
    loss = cl.as_loss("mse")
    for level in range(levels):
        loss = cl.CompositeLoss({"inner": loss, "mae": "mae"}, name=f"level_{level}")
    return loss


def calls(prepare, size):
    """How many functions a use calls, for one more of `size` things."""
    use = prepare(size)
    use()  # what happens once
    profile = cProfile.Profile()
    profile.runcall(use)
    return pstats.Stats(profile).total_calls / size


USES = {
    "call": lambda n: lambda loss=with_parts(n): loss(Y_TRUE, Y_PRED),
    "components": lambda n: lambda loss=with_parts(n): loss.components(Y_TRUE, Y_PRED),
    "make": lambda n: lambda: with_parts(n),
    "set_weight": lambda n: lambda loss=with_parts(n): loss.set_weight("part_0", 2.0),
    "get_config": lambda n: lambda loss=with_parts(n): loss.get_config(),
    "levels": lambda n: lambda loss=nested(n): loss(Y_TRUE, Y_PRED),
}


@pytest.mark.parametrize("use", USES)
def test_the_calls_grow_with_the_parts(use):
    few, many = (8, 24) if use == "levels" else (16, 64)
    assert calls(USES[use], many) <= 1.1 * calls(USES[use], few)
