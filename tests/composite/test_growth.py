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


def calls(make, use, size):
    """How many functions a use calls, for each of `size` things."""
    loss = make(size)
    use(loss)  # what happens once
    profile = cProfile.Profile()
    profile.runcall(use, loss)
    return pstats.Stats(profile).total_calls / size


USES = {
    "call": (with_parts, lambda loss: loss(Y_TRUE, Y_PRED)),
    "components": (with_parts, lambda loss: loss.components(Y_TRUE, Y_PRED)),
    "make": (with_parts, lambda loss: with_parts(len(loss.names))),
    "set_weight": (with_parts, lambda loss: loss.set_weight("part_0", 2.0)),
    "get_config": (with_parts, lambda loss: loss.get_config()),
    "from_config": (with_parts, lambda loss: loss.from_config(loss.get_config())),
    "levels": (nested, lambda loss: loss(Y_TRUE, Y_PRED)),
}


@pytest.mark.parametrize("use", USES)
def test_the_calls_grow_with_the_parts(use):
    few, many = (8, 24) if use == "levels" else (16, 64)
    assert calls(*USES[use], many) <= 1.1 * calls(*USES[use], few)
