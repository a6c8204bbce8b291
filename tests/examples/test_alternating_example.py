"""Tasks in turn: each rule learns as it does where both tasks are labelled in every batch."""

import re
from pathlib import Path

import numpy as np
import pytest

from examples import alternating_tasks

PAGE = Path(__file__).parents[2] / "docs" / "alternating_tasks.md"
MOST = 1.5  # the error of tasks in turn, as a multiple of that of both together
# Those that learn nothing in a few steps if what is absent is taken for a value of 0.
MISLED = ["FAMO", "GeometricMean"]


def assert_turns_are_as_good(errors):
    bad = {key: found for key, found in errors.items() if not found[0] <= MOST * found[1]}
    assert not bad
    # And both have learned: 1 is what a constant achieves.
    assert max(found[1] for found in errors.values()) < 0.3


def test_a_rule_learns_from_tasks_in_turn(seeds, pytestconfig):
    if pytestconfig.option.long:
        found = [alternating_tasks.main(seed) for seed in seeds]
        errors = {key: np.mean([each[key] for each in found], axis=0) for key in found[0]}
    else:
        errors = alternating_tasks.main(rules=MISLED, optimizers=["SGD"], epochs=6, count=128)
    assert_turns_are_as_good(errors)


def rows_of_the_page():
    """The numbers of each rule in the table of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rows = [row for row in cells if len(row) == 7 and re.fullmatch(r"[\d.]+", row[1])]
    return {row[0]: [float(cell) for cell in row[1:]] for row in rows}


@pytest.mark.backend_free
def test_every_rule_is_in_the_table_and_within_the_bound():
    rows = rows_of_the_page()
    assert list(rows) == list(alternating_tasks.find_rules())
    for numbers in rows.values():
        for turns, both, ratio in (numbers[:3], numbers[3:]):
            assert ratio == pytest.approx(turns / both, abs=0.1)
            assert turns / both <= MOST
