"""What `overlapping_masks.py` says."""

from tests.examples import overlapping_masks


def test_masks_are_found_where_they_overlap(mean_over_seeds):
    numbers = mean_over_seeds(overlapping_masks.main)
    for name in overlapping_masks.NAMES:
        assert numbers[name] > 0.7  # intersection over union
        assert numbers[f"{name}, last Dice"] < 0.2
    assert numbers["found where they overlap"] > 0.8
    assert numbers["found by a softmax"] <= 0.5  # which has one class for each pixel
