"""The examples do what they say: each script's claims, from the numbers that its `main` returns."""

from pathlib import Path

import pytest

from tests.examples import missing_labels, oscillator, two_heads, vae

# Mean squared error of the mean image, over all digits and pixels: what knowing nothing achieves.
MEAN_IMAGE = 0.0733


def test_vae_learns_and_logs_both_parts(mean_over_seeds):
    history = mean_over_seeds(vae.main)
    assert set(history) == {"loss", "reconstruction_loss", "kl_loss"}
    loss, reconstruction, kl = (
        history[name][-1] for name in ("loss", "reconstruction_loss", "kl_loss")
    )
    assert loss == pytest.approx(reconstruction + 3e-4 * kl, rel=1e-4)
    assert reconstruction < 0.5 * MEAN_IMAGE
    assert kl > 1  # the code says something of the image
    assert loss < 0.7 * history["loss"][0]


@pytest.mark.backend_free
def test_vae_has_less_than_40_lines():
    assert len(Path(vae.__file__).read_text(encoding="utf-8").splitlines()) < 40


def test_two_heads_know_where_they_are_sure(mean_over_seeds):
    numbers = mean_over_seeds(two_heads.main)
    assert numbers["error of the surer half"] < 0.9 * numbers["error of the other half"]
    # The head for the mean learns, though it is trained through the loss of both only.
    assert numbers["error_loss"] < 0.6  # 1 is the variance of the targets
    assert numbers["loss"] == pytest.approx(
        numbers["likelihood_loss"] + numbers["error_loss"], rel=1e-4
    )


def test_oscillator_away_from_the_data_the_equation_is_worth_a_factor_of_ten(seeds, pytestconfig):
    for seed in seeds:
        errors = oscillator.main(seed, steps=700 if pytestconfig.option.long else 500)
        assert errors["with the equation"] < errors["data only"] / 10


def test_missing_labels_beat_the_complete_rows(mean_over_seeds):
    scores = mean_over_seeds(missing_labels.main)
    assert scores["score of all rows, masked"] >= scores["score of complete rows"]
    assert scores["score of all rows, masked"] > 0.3  # 0 is the mean of the targets
