"""torch.distributed: what ranks must not do, and what a process without ranks does."""

import sys

import keras
import pytest

import combined_losses as cl
from tests.engines.starting import ranks, together

on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="an engine of torch")


def on_two_ranks(*command):
    """What both ranks print, and their exit codes."""
    return together([[sys.executable, *command]] * 2, ranks(2), timeout=240)


PROGRAM = """
import atexit, datetime, os, sys
import keras, numpy as np, torch
import combined_losses as cl
rank = int(os.environ["RANK"])
torch.distributed.init_process_group(
    "gloo", init_method="tcp://127.0.0.1:" + os.environ["PORT"], rank=rank, world_size=2,
    timeout=datetime.timedelta(seconds=4))
# A process that ends with a group sometimes aborts: a thread of the group still runs.
atexit.register(torch.distributed.destroy_process_group)
x, y = np.ones((4, 2), "float32"), np.ones((4, 1), "float32")
parts = {"mse": "mse", "mae": "mae"} if rank == 0 or "same" in sys.argv else {"mse": "mse"}
loss = cl.CompositeLoss(parts)
if "loop" in sys.argv:
    if rank == 0 or "lacks" not in sys.argv:
        print(float(loss(y, torch.zeros(4, 1, requires_grad=True)).detach()))
else:
    model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", loss=loss)
    rows = 4 if rank == 0 or "lacks" not in sys.argv else 2
    model.fit(x[:rows], y[:rows], batch_size=2, verbose=0)
print("end")
"""


@on_torch
@pytest.mark.parametrize("way", ["loop", "fit"])
def test_other_composites_on_the_ranks_are_an_error_on_both(way):
    for code, _, err in on_two_ranks("-c", PROGRAM, way):
        assert code == 1
        assert "must be the same on all ranks" in err
        assert "'mae': 'mae'" in err


@on_torch
@pytest.mark.parametrize("way", ["loop", "fit"])
def test_a_rank_that_lacks_a_batch_is_an_error_of_the_engine_within_its_timeout(way):
    first, _ = on_two_ranks("-c", PROGRAM, way, "same", "lacks")
    assert first[0] != 0
    # The other one has left: "Connection closed by peer", or "reset by peer".
    assert "imed out" in first[2] or "by peer" in first[2]


@on_torch
def test_both_ranks_have_the_value_of_the_whole_batch():
    for code, out, err in on_two_ranks("-c", PROGRAM, "loop", "same"):
        assert code == 0, err
        assert out == "2.0\nend\n"


@pytest.mark.parametrize("group", [True] if keras.backend.backend() == "torch" else [False, 1])
def test_what_is_no_group(group):
    with pytest.raises(ValueError, match=r"Received: .*(True|False|1)"):
        cl.distributed(group)


def test_without_ranks_nothing_changes():
    loss = cl.CompositeLoss(["mse", "mae"])
    with cl.distributed():
        assert float(loss([[2.0]], [[0.0]])) == 6.0
