"""The examples run with one seed; in their long form (`pytest --long`) with five, and all steps."""

import numpy as np
import pytest


@pytest.fixture
def seeds(pytestconfig):
    return range(5 if pytestconfig.option.long else 1)


@pytest.fixture
def mean_over_seeds(seeds):
    """A function that calls `main(seed)` of an example: the mean of each of its numbers."""

    def mean(main):
        found = [main(seed) for seed in seeds]
        return {name: np.mean([numbers[name] for numbers in found], axis=0) for name in found[0]}

    return mean
