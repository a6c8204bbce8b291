"""What the losses of images to be aligned claim: what they do not see, limits, weights, slopes."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops
from scipy.ndimage import gaussian_filter, uniform_filter

import combined_losses as cl
from combined_losses.losses.images import information
from tests.composite.children import value
from tests.gradients import gradient
from tests.masks import masked
from tests.messages import raises
from tests.oracles import images, registration
from tests.processes import run_python

Correlation, Information = cl.losses.LocalCrossCorrelation, cl.losses.MutualInformation
Bending, Diffusion, SSIM = cl.losses.BendingEnergy, cl.losses.Diffusion, cl.losses.SSIM

RNG = np.random.default_rng(0)
IMAGES = gaussian_filter(RNG.random((2, 14, 12, 2)), (0, 1, 1, 0)).astype("float32")
IMAGES = (IMAGES - IMAGES.min()) / np.ptp(IMAGES)
OTHERS = IMAGES + RNG.normal(size=IMAGES.shape, scale=0.1).astype("float32")
VOLUMES = RNG.random((2, 6, 7, 5, 1)).astype("float32")
OTHER_VOLUMES = VOLUMES + RNG.normal(size=VOLUMES.shape, scale=0.2).astype("float32")
COUNTS = RNG.integers(0, 3, IMAGES.shape).astype("float32")
COUNTS[1, ..., 0] = 0  # in one channel nothing counts

# Losses that weigh pixels, with their twins.
WEIGHED = [
    pytest.param(SSIM, images.ssim, {"filter_size": 4}, id="SSIM"),
    pytest.param(
        Correlation, registration.local_cross_correlation, {"window": 5}, id="LocalCrossCorrelation"
    ),
    pytest.param(Information, registration.mutual_information, {"bins": 9}, id="MutualInformation"),
]
weighed = pytest.mark.parametrize("loss, twin, arguments", WEIGHED)


def close(actual, expected, atol=2e-6, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def slope(loss, y_true, y_pred, *weight):
    return gradient(lambda p: loss(y_true, p, *weight), y_pred)


# Weights and masks of pixels act inside.


@weighed
@pytest.mark.parametrize("kind", ["entries", "pixels"])
def test_weights_of_pixels_are_those_of_the_twin(loss, twin, arguments, kind):
    counts = COUNTS if kind == "entries" else COUNTS[..., :1] + 0 * COUNTS
    weight = COUNTS if kind == "entries" else COUNTS[..., 0]
    values, slopes = twin(IMAGES, OTHERS, **arguments, counts=counts)
    made = loss(reduction="none", **arguments)
    close(value(made, IMAGES, OTHERS, weight), values)
    close(slope(made, IMAGES, OTHERS, weight), slopes, rtol=1e-4, atol=2e-5)


@weighed
def test_what_is_in_pixels_that_do_not_count_does_no_harm(loss, twin, arguments):
    made = loss(reduction="none", **arguments)
    unknown, other = (np.where(COUNTS > 0, x, np.float32(np.nan)) for x in (IMAGES, OTHERS))
    close(value(made, unknown, other, COUNTS), value(made, IMAGES, OTHERS, COUNTS), atol=1e-7)
    slopes = slope(made, unknown, other, COUNTS)
    close(slopes, slope(made, IMAGES, OTHERS, COUNTS), atol=1e-7)
    assert np.all(slopes[COUNTS == 0] == 0)


@weighed
def test_a_mask_is_a_weight_and_equal_weights_change_nothing(loss, twin, arguments):
    made = loss(**arguments)
    mask = COUNTS[..., 0] > 0
    expected = value(made, IMAGES, OTHERS, mask.astype("float32"))
    close(value(lambda y, p: made(y, masked(p, mask)), IMAGES, OTHERS), expected)
    close(value(made, IMAGES, OTHERS, 2 + 0 * COUNTS), value(made, IMAGES, OTHERS))


@weighed
def test_where_nothing_counts_the_value_and_the_slope_are_0(loss, twin, arguments):
    weight = COUNTS.copy()
    weight[0] = 0
    made = loss(reduction="none", **arguments)
    assert value(made, IMAGES, OTHERS, weight)[0] == 0
    assert np.all(slope(made, IMAGES, OTHERS, weight)[0] == 0)
    assert np.all(value(made, IMAGES, OTHERS, 0 * weight) == 0)


# SSIM of volumes and with void pixels.


@pytest.mark.parametrize("number", [-1.0, np.nan])
def test_void_voxels_are_those_of_weight_0(number):
    counts = (RNG.random(VOLUMES.shape) > 0.3).astype("float32")
    y_true = np.where(counts > 0, VOLUMES, np.float32(number))
    loss, data = SSIM(filter_size=4, ignore_value=number), (y_true, OTHER_VOLUMES)
    expected = value(SSIM(filter_size=4), VOLUMES, OTHER_VOLUMES, counts)
    close(value(loss, *data), expected)
    close(slope(loss, *data), slope(SSIM(filter_size=4), VOLUMES, OTHER_VOLUMES, counts))
    nothing = np.full_like(VOLUMES, number)
    assert value(loss, nothing, OTHER_VOLUMES) == 0
    assert np.all(slope(loss, nothing, OTHER_VOLUMES) == 0)


def test_without_void_pixels_it_is_ssim():
    for data in ((IMAGES, OTHERS), (VOLUMES, OTHER_VOLUMES)):
        loss, plain = SSIM(filter_size=5, ignore_value=-1), SSIM(filter_size=5)
        close(value(loss, *data), value(plain, *data))
        close(slope(loss, *data), slope(plain, *data))


@pytest.mark.parametrize("loss", [SSIM(filter_size=5), Correlation(5)], ids=lambda loss: loss.name)
@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_volume_of_equal_slices_is_its_slice(loss, axis):
    volumes = [np.stack([image] * 6, axis=axis) for image in (IMAGES, OTHERS)]
    close(value(loss, *volumes), value(loss, IMAGES, OTHERS))


# Local correlation.


def test_correlation_is_that_of_scipys_filters():
    def mean(image):
        return uniform_filter(np.float64(image), 5)[2:-2, 2:-2]

    y, p = IMAGES[0, ..., 0], OTHERS[0, ..., 0]
    vy, vp = mean(y * y) - mean(y) ** 2, mean(p * p) - mean(p) ** 2
    cov = mean(y * p) - mean(y) * mean(p)
    expected = 1 - np.mean(cov**2 / (vy * vp + 1e-5))
    close(value(Correlation(5), y[None], p[None]), expected)


@pytest.mark.parametrize("a, b", [(0.0, 1.0), (0.5, -0.4), (-3.0, 2.0), (100.0, 100.0)])
def test_correlation_does_not_see_an_affine_change(a, b):
    made = Correlation(5, epsilon=1e-12)
    assert value(made, IMAGES, np.float32(a) + np.float32(b) * IMAGES) < 1e-4
    expected = value(made, IMAGES, OTHERS)
    close(value(made, IMAGES, np.float32(a) + np.float32(b) * OTHERS), expected, atol=1e-4)


def test_correlation_is_symmetric_and_1_for_flat_images():
    close(value(Correlation(5), OTHERS, IMAGES), value(Correlation(5), IMAGES, OTHERS))
    for flat in (0.0, 0.3, 1e6):
        other = np.full_like(IMAGES, flat)
        assert value(Correlation(5), IMAGES, other) == 1
        assert np.all(slope(Correlation(5), IMAGES, other) == 0)
        assert value(Correlation(5), other, other) == 1


@pytest.mark.parametrize("air", [-1000.0, -777.77])
def test_correlation_in_a_large_range_with_flat_parts_is_that_of_float64(air):
    """Half of a scan is air. In float32 the rounding of its squares is far above epsilon."""
    scans = []
    for image in (IMAGES, OTHERS):
        scans.append(np.concatenate([np.float32(4000) * image - np.float32(1000)] * 2, axis=1))
        scans[-1][:, 11:] = air
    expected, _ = registration.local_cross_correlation(*scans, window=5)
    close(value(Correlation(5, reduction="none"), *scans), expected)
    slopes = slope(Correlation(5), *scans)
    assert np.all(np.isfinite(slopes)) and np.all(slopes[:, 15:] == 0)


def test_images_smaller_than_the_window_are_an_error():
    with raises(ValueError, "LocalCrossCorrelation needs", "at least 9", "has 5", "window below 9"):
        Correlation()(VOLUMES, VOLUMES)


# Mutual information.


def test_information_of_an_image_about_itself_is_its_entropy():
    levels = np.repeat(np.linspace(0, 1, 8), 16).astype("float32").reshape(1, 16, 8, 1)
    close(value(Information(8, sigma_ratio=0.05), levels, levels), -np.log(8), atol=1e-4)


def test_information_is_symmetric_and_blind_to_a_negative():
    made = Information(16)
    expected = value(made, IMAGES, OTHERS)
    close(value(made, OTHERS, IMAGES), expected)
    close(value(made, IMAGES, 1 - OTHERS), expected)
    close(value(made, 1 - IMAGES, OTHERS), expected)


@pytest.mark.parametrize("flat", [0.0, 0.41, 1e6, -1e6])
def test_a_flat_image_knows_nothing(flat):
    other = np.full_like(IMAGES, flat)
    close(value(Information(), IMAGES, other), 0, atol=3e-6)
    assert np.all(np.isfinite(slope(Information(), IMAGES, other)))


@pytest.mark.parametrize("sigma_ratio", [0.05, 0.5, 5.0])
def test_information_beyond_its_range_is_that_of_the_outermost_bins(sigma_ratio):
    made = Information(8, sigma_ratio=sigma_ratio)
    far, farther = (np.where(IMAGES > 0.5, x, -x).astype("float32") for x in (1e4, 1e30))
    close(value(made, far, OTHERS), value(made, farther, OTHERS))
    assert np.all(slope(made, OTHERS, far) == 0)


def test_blocks_of_pixels_change_nothing(monkeypatch):
    made, weight = Information(9, reduction="none"), COUNTS[..., 0]
    before = value(made, IMAGES, OTHERS, weight), slope(made, IMAGES, OTHERS, weight)
    monkeypatch.setattr(information, "_PAIRS", 9 * 50)  # 168 pixels are 4 blocks
    close(value(made, IMAGES, OTHERS, weight), before[0], atol=1e-6)
    close(slope(made, IMAGES, OTHERS, weight), before[1], atol=1e-6)


def test_information_has_a_slope_by_the_truth_too():
    by_truth = gradient(lambda y: Information(9)(y, OTHERS), IMAGES)
    close(by_truth, slope(Information(9), OTHERS, IMAGES))


_PEAK = """
import re
import keras, numpy as np, combined_losses as cl
from tests.gradients import gradient

def memory(what):
    return int(re.search(what + r":\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1024

y, p = np.random.default_rng(0).random((2, 1, 96, 96, 96, 1)).astype("float32")
loss = cl.losses.MutualInformation()
gradient(lambda p: loss(y[:, :8], p), p[:, :8])
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
gradient(lambda p: loss(y, p), p)
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="Linux knows the peak")
def test_information_keeps_no_array_of_all_pixels_and_bins(tmp_path):
    """One has 108 MiB here; of each image the plain formula keeps at least two for its slope."""
    root = str(Path(__file__).parents[2])  # that of the tests
    assert float(run_python(_PEAK, tmp_path, PYTHONPATH=root).split()[-1]) < 160


# Displacements.


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_affine_displacements_do_not_bend(axes):
    places = np.moveaxis(np.indices([5, 4, 6][:axes]), 0, -1)
    field = (places @ RNG.normal(size=(axes, axes)) + 1)[None].astype("float32")
    assert value(Bending(), None, field) < 1e-11
    assert value(Diffusion(), None, 0 * field + 7) == 0
    assert np.all(slope(Diffusion(), None, 0 * field + 7) == 0)


@pytest.mark.parametrize("loss, power", [(Bending, -4), (Diffusion, -2)])
def test_spacing_is_a_scale(loss, power):
    field = RNG.normal(size=(2, 4, 5, 4, 3)).astype("float32")
    expected = value(loss(), None, field)
    close(value(loss(spacing=1.0), None, field), expected)
    close(value(loss(spacing=2.0), None, field), 2.0**power * expected)
    close(value(loss(spacing=[2, 2, 2]), None, field), 2.0**power * expected)


def test_a_chessboard_bends_most():
    """Of all fields of one size; differences of neighbours but one would not see it."""
    board = (-1.0) ** np.indices((8, 8)).sum(axis=0)[None, ..., None]
    close(value(Bending(), None, board), 32.0)
    close(value(Diffusion(), None, board), 8.0)
    for _ in range(5):
        signs = np.sign(RNG.normal(size=board.shape))
        assert value(Bending(), None, signs) < 32


@pytest.mark.parametrize("loss", [Bending, Diffusion])
def test_fields_of_other_ranks_and_spacings_are_errors(loss):
    with raises(ValueError, loss.__name__, "one to three spatial axes", "shape (3, 4)"):
        loss()(None, np.zeros((3, 4)))
    with raises(ValueError, f"`spacing` of {loss.__name__}", "each of the 2 axes"):
        loss(spacing=[1.0, 2.0, 3.0])(None, np.zeros((1, 4, 4, 2)))


def test_bending_needs_three_pixels_a_side_and_diffusion_one():
    with raises(ValueError, "at least 3 pixels a side", "shape (1, 2, 4, 2)"):
        Bending()(None, np.zeros((1, 2, 4, 2)))
    line = RNG.normal(size=(1, 1, 6, 2)).astype("float32")
    close(value(Diffusion(), None, line), np.mean(np.diff(line, axis=2) ** 2))


# Frequencies.


@pytest.mark.parametrize("shape", [(2, 5, 7, 2), (2, 6, 8, 1), (2, 1, 5, 1), (2, 4, 1, 1)])
@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
def test_odd_and_even_sides_are_those_of_the_whole_spectrum(shape, alpha):
    y_true, y_pred = RNG.normal(size=(2, *shape)).astype("float32")
    loss = cl.losses.FocalFrequency(alpha, reduction="none")
    values, slopes = images.focal_frequency(y_true, y_pred, alpha)
    close(value(loss, y_true, y_pred), values)
    close(slope(loss, y_true, y_pred), slopes)
    if alpha == 0:
        close(value(loss, y_true, y_pred), np.mean((y_true - y_pred) ** 2, axis=(1, 2, 3)))


def test_equal_images_have_no_frequencies_to_mend():
    for alpha in (0.0, 0.5, 1.0):
        loss = cl.losses.FocalFrequency(alpha)
        assert value(loss, IMAGES, IMAGES) == 0
        assert np.all(slope(loss, IMAGES, IMAGES) == 0)
    loss = cl.losses.FocalFrequency()
    error = OTHERS - IMAGES
    for factor in (1e-8, 1e8):
        scaled = value(loss, 0 * error, np.float32(factor) * error) / factor**2
        close(scaled, value(loss, 0 * error, error))


def test_frequencies_are_those_of_images():
    with raises(ValueError, "FocalFrequency compares images", "shape (2, 6, 7, 5, 1)"):
        cl.losses.FocalFrequency()(VOLUMES, OTHER_VOLUMES)
    single = IMAGES[..., 0], OTHERS[..., 0]
    expected = value(cl.losses.FocalFrequency(), *(x[..., None] for x in single))
    close(value(cl.losses.FocalFrequency(), *single), expected)


# No samples, as on a replica without any.

NONE = {
    "SSIM": SSIM(filter_size=3, ignore_value=-1.0),
    "correlation": Correlation(3),
    "information": Information(),
    "frequencies": cl.losses.FocalFrequency(),
    "bending": Bending(),
    "diffusion": Diffusion(),
}


@pytest.mark.parametrize("name", NONE)
@pytest.mark.parametrize("shape", [(0, 6, 6, 2), (0, 6, 6, 6, 2)])
def test_no_samples_cost_nothing(name, shape):
    if name == "frequencies" and len(shape) > 4:
        pytest.skip("it takes images")
    nothing = np.zeros(shape, "float32")
    assert value(NONE[name], nothing, nothing) == 0
    assert ops.shape(NONE[name].call(*map(ops.convert_to_tensor, (nothing, nothing)))) == (0,)
    assert slope(NONE[name], nothing, nothing).shape == shape
