"""The example of several properties does what it says, for each seed."""

import pytest

from tests.examples import properties


def test_labels_that_are_missing_are_better_left_out_than_filled_in(seeds):
    for seed in seeds:
        numbers = properties.main(seed)
        assert numbers["complete rows"] < 5  # rows alone would leave nothing to train on
        assert numbers["masked, nll"] < numbers["filled, nll"] - 0.1
        assert numbers["masked, error"] < 0.9 * numbers["filled, error"]
        # 95 % of a normal distribution; who fills in means is too sure.
        assert numbers["filled, within two sigma"] < numbers["masked, within two sigma"] < 0.99
        curves = [numbers[f"property/{name}_loss"] for name in properties.PROPERTIES]
        assert numbers["property_loss"] == pytest.approx(sum(curves) / 5, rel=1e-4)
