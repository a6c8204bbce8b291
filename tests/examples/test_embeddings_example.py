"""What `digit_embedding.py` says."""

from tests.examples import digit_embedding


def test_a_contrastive_term_brings_digits_together(seeds):
    """By 0.04 to 0.07, for each of five seeds on TensorFlow."""
    for seed in seeds:
        share = digit_embedding.main(seed)
        assert share["cross-entropy"] > 0.7  # 0.1 is chance
        assert share["with the contrastive term"] > share["cross-entropy"] + 0.03
