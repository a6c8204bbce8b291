"""Every loss: a label that is missing takes no other label of its row, but where a row is one."""

import numpy as np
import pytest

import combined_losses as cl
from combined_losses._core.compound import has_whole_rows
from combined_losses._core.domains import domain_of
from combined_losses.wrappers import Masked
from tests.contracts.registry import CASES
from tests.gradients import gradient

WIDE = [case for case in CASES if case.y_true.ndim > 1 and case.y_true.shape[-1] > 1]


def is_one_row(loss):
    """Whether a row of targets is one thing: a box, a divergence, classes that exclude each other.

    A region loss is told so by `multilabel`.
    """
    rows = domain_of(loss).targets in ("classes", "ids") or getattr(loss, "takes_ids", False)
    classes = rows or isinstance(loss, cl.losses.LovaszSoftmax)
    exclusive = getattr(loss, "multilabel", None) is False
    return has_whole_rows(loss) or classes or exclusive or not getattr(loss, "needs_target", True)


def variants(case):
    """The loss, and that of independent channels where it knows them."""
    loss = case.make()
    return [case.make(multilabel=True)] if hasattr(loss, "multilabel") else [loss]


@pytest.mark.parametrize("case", WIDE, ids=lambda case: case.loss.__name__)
def test_one_missing_label_takes_no_other(case):
    for loss in variants(case):
        if is_one_row(loss):
            pytest.skip("a row is one thing")
        check_others(loss, case)


def check_others(loss, case):
    """The other predictions of the row of a missing label have a slope still."""
    before = gradient(lambda p: loss(case.y_true, p), case.y_pred)
    size = case.y_true.shape[-1]
    others = [k for k in range(before.shape[-1]) if k % size]
    row = next(i for i in np.ndindex(before.shape[:-1]) if np.any(before[i][others] != 0))
    holes = np.array(case.y_true, "float32")
    holes[(*row[: holes.ndim - 1], 0)] = np.nan
    try:
        slope = gradient(lambda p: Masked(loss)(holes, p), case.y_pred)
    except ValueError as error:
        assert "cannot honour the mask" in str(error)  # it is said, not done in silence
        return
    assert np.all(np.isfinite(slope))
    assert np.any(slope[row][others] != 0)


def test_what_is_one_row_is_a_box_or_a_class():
    """So that no loss comes to be skipped above unseen."""
    skipped = {case.loss for case in WIDE if any(map(is_one_row, variants(case)))}
    assert cl.losses.GaussianNLL not in skipped and cl.losses.GIoU in skipped
    assert len(skipped) < len(WIDE) / 2
