"""The example of images does what it says."""

from tests.examples import denoise


def test_denoised_with_the_similarity_looks_more_like_the_photograph(seeds):
    for seed in seeds:
        found = denoise.main(seed)
        assert found["ms-ssim and mae"] > found["mae"] > found["noisy"]
