"""What `stroke_boxes.py` says."""

from tests.examples import stroke_boxes


def test_boxes_are_found_in_noise(mean_over_seeds):
    scores = mean_over_seeds(stroke_boxes.main)
    assert scores["mean IoU"] > 0.67
    assert scores["of the mean box"] < 0.2
