"""The example of an embedding does what it says."""

from tests.examples import digit_embedding


def test_a_contrastive_term_brings_digits_together():
    """By 0.05 to 0.10, for any of five seeds and on every backend."""
    precision = digit_embedding.main()
    assert precision["cross-entropy"] > 0.6  # 0.1 is chance
    assert precision["with the contrastive term"] > precision["cross-entropy"] + 0.03
