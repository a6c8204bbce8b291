"""The U-Net of odd sizes does what it says, from the numbers that its `main` returns."""

import pytest

from tests.examples import odd_unet


def test_a_unet_of_odd_sizes_finds_the_rare_class(mean_over_seeds):
    numbers = mean_over_seeds(odd_unet.main)
    assert numbers["weighted: dots found"] > numbers["plain: dots found"] + 0.15
    assert numbers["weighted: pixels right"] > 0.97
    # The parts of every output add up to the loss, at weights of 4/7, 2/7 and 1/7.
    outputs = {
        name: numbers[f"deep/{name}_ce_loss"] + 0.2 * numbers[f"deep/{name}_dice_loss"]
        for name in odd_unet.OUTPUTS
    }
    for name, total in outputs.items():
        assert numbers[f"deep/{name}_loss"] == pytest.approx(total, rel=1e-4)
    weights = [4 / 7, 2 / 7, 1 / 7]
    whole = sum(w * total for w, total in zip(weights, outputs.values(), strict=True))
    assert numbers["loss"] == pytest.approx(whole, rel=1e-4)
