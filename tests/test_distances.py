"""The exact Euclidean distances: in the graph and in NumPy, against those of SciPy."""

import keras
import numpy as np
import pytest
from keras import ops

from combined_losses._numerics.distances import to_other_kind
from combined_losses.losses import distance_maps, signed_distance
from tests.messages import raises
from tests.oracles.boundaries import other_kind

RNG = np.random.default_rng(0)


def scattered(*shape, share):
    return RNG.uniform(size=shape) < share


def single(*shape, at):
    mask = np.zeros(shape, bool)
    mask[at] = True
    return mask


MASKS = {
    "random": scattered(20, 23, share=0.5),
    "sparse": scattered(20, 23, share=0.01),
    "dense": scattered(20, 23, share=0.99),
    "blob": np.hypot(*(np.mgrid[:20, :23] - 10)) < 7,
    "corner": single(20, 23, at=(0, 0)),
    "hole": ~single(20, 23, at=(19, 11)),
    "empty": np.zeros((20, 23), bool),
    "full": np.ones((20, 23), bool),
    "prime": scattered(17, 13, share=0.05),
    "wide": scattered(3, 300, share=0.01),
    "tall": single(300, 3, at=(299, 2)),
    "volume": scattered(7, 5, 9, share=0.02),
    "slice": scattered(1, 11, 6, share=0.1),
    "line": scattered(37, share=0.1),
    "row": scattered(1, 37, share=0.1),
    "column": scattered(64, 1, share=0.1),
    "pixel": np.ones((1, 1), bool),
    "pair": np.array([[True, False]]),
}
every_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


def squared(masks):
    return to_other_kind(masks, tuple(range(1, len(masks.shape) - 1)))


if keras.backend.backend() == "jax":  # each call would compile its loops again
    import jax

    plain, squared = squared, jax.jit(squared)


def in_graph(masks):
    """Of `(batch, spatial..., channels)`."""
    return np.sqrt(ops.convert_to_numpy(squared(ops.convert_to_tensor(masks))))


def alone(mask):
    return in_graph(mask[None, ..., None])[0, ..., 0]


def signed(mask):
    """`other_kind` with its sign, the rim being 0."""
    distance = other_kind(mask)
    return np.where(mask, np.minimum(1 - distance, 0), distance)


def close(actual, expected):
    """In pixels."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4)


@every_mask
def test_they_are_those_of_scipy(mask):
    close(alone(mask), other_kind(mask))
    close(alone(~mask), other_kind(mask))


@pytest.mark.backend_free
@every_mask
def test_the_helper_has_their_sign(mask):
    found = signed_distance(mask)
    assert found.dtype == "float32"
    close(found, signed(mask))


def test_lines_are_compared_in_blocks():
    """More pairs than are compared at once, and the longest distances."""
    for mask in (single(256, 256, at=(0, 0)), scattered(256, 256, share=0.0003)):
        close(alone(mask), other_kind(mask))


def test_a_long_line_is_exact():
    distances = alone(single(1, 4000, at=(0, 0)))
    np.testing.assert_array_equal(distances[0, 1:], np.arange(1, 4000))


def test_samples_and_channels_do_not_see_each_other():
    masks = np.stack([scattered(9, 8, 4, share=share) for share in (0.5, 0.1, 0.02, 0.0, 1.0)])
    found = in_graph(masks)
    for n, c in np.ndindex(5, 4):
        close(found[n, ..., c], other_kind(masks[n, ..., c]))


# Neighbours that are not 1 apart.

SPACINGS = {2: ([1.0, 0.2], [0.37, 1.0], [1e-3, 1.0]), 3: ([1.0, 1.0, 0.2], [0.1, 0.6, 1.0])}


@pytest.mark.parametrize("name", ["random", "sparse", "corner", "hole", "wide", "volume", "row"])
def test_they_are_those_of_scipy_with_any_spacing(name):
    mask = MASKS[name]
    for spacing in SPACINGS[mask.ndim]:
        squares = to_other_kind(
            ops.convert_to_tensor(mask[None, ..., None]), tuple(range(1, mask.ndim + 1)), spacing
        )
        found = np.sqrt(ops.convert_to_numpy(squares))[0, ..., 0]
        np.testing.assert_allclose(found, other_kind(mask, spacing), rtol=1e-5, atol=1e-6)


def test_a_long_line_is_exact_with_a_spacing():
    """Differences of places are taken before they are multiplied."""
    mask = single(3, 4000, at=(0, 0))
    squares = to_other_kind(ops.convert_to_tensor(mask[None, ..., None]), (1, 2), [1.0, 0.3])
    found = np.sqrt(ops.convert_to_numpy(squares))[0, ..., 0]
    np.testing.assert_allclose(found, other_kind(mask, [1.0, 0.3]), rtol=1e-6)


@pytest.mark.backend_free
@pytest.mark.parametrize("name", ["blob", "sparse", "empty", "full", "volume"])
@pytest.mark.parametrize("unit", [1e-25, 1.0, 1e25])
def test_the_helper_takes_a_spacing(name, unit):
    mask = MASKS[name]
    for spacing in (*SPACINGS[mask.ndim], 0.6):
        steps = np.broadcast_to(spacing, mask.ndim) * unit
        distance = other_kind(mask, [*steps])
        expected = np.where(mask & (distance > 0), min(steps) - distance, distance)
        found = signed_distance(mask, spacing=(unit * np.asarray(spacing)).tolist())
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * unit)


@pytest.mark.backend_free
def test_a_spacing_that_does_not_fit():
    mask = MASKS["blob"]
    with raises(ValueError, "`spacing` of signed_distance", "each of the 2 axes", "[1.0]"):
        signed_distance(mask, spacing=[1.0])
    with raises(ValueError, "`spacing` of signed_distance", "above 0", "Received: [1.0, 0]"):
        signed_distance(mask, spacing=[1.0, 0])
    with raises(ValueError, "`spacing` of distance_maps", "each of the 1 axes"):
        distance_maps(mask[None], spacing=[1.0, 2.0])
    with raises(ValueError, "`mask` of distance_maps", "rank 3", "(20, 23)"):
        distance_maps(mask)


# Compiled.


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="a function of TensorFlow")
@pytest.mark.parametrize("name", ["random", "sparse", "prime", "wide", "row", "pixel", "volume"])
def test_shapes_that_are_unknown_when_it_is_compiled(name):
    import tensorflow as tf

    mask = MASKS[name][None, ..., None]
    signature = [tf.TensorSpec([None] * mask.ndim, tf.bool)]
    compiled = tf.function(squared, input_signature=signature)
    for batch in (mask, np.concatenate([mask, ~mask], axis=-1)):
        close(np.sqrt(compiled(batch)), in_graph(batch))


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="a function of JAX")
@pytest.mark.parametrize("name", ["sparse", "volume"])
def test_operation_by_operation_it_is_the_same(name):
    mask = MASKS[name][None, ..., None]
    close(np.sqrt(plain(ops.convert_to_tensor(mask))), in_graph(mask))


def test_a_floatx_of_16_bits_is_too_short_for_them():
    keras.config.set_floatx("float16")
    try:
        close(alone(MASKS["tall"]), other_kind(MASKS["tall"]))
    finally:
        keras.config.set_floatx("float32")


# The helper.


@pytest.mark.backend_free
@pytest.mark.parametrize("shape", [(12,), (5, 6), (3, 4, 5)])
def test_an_array_of_up_to_three_axes_is_one_image(shape):
    mask = scattered(*shape, share=0.3)
    close(signed_distance(mask), signed(mask))


@pytest.mark.backend_free
@pytest.mark.parametrize("shape", [(2, 5, 6, 3), (2, 3, 4, 5, 2)])
def test_one_of_more_axes_has_samples_and_channels(shape):
    masks = scattered(*shape, share=0.3)
    found = signed_distance(masks)
    for n, c in np.ndindex(shape[0], shape[-1]):
        close(found[n, ..., c], signed(masks[n, ..., c]))


@pytest.mark.backend_free
@pytest.mark.parametrize("axes", [(1, 2), (-2, -1), (2, 1), [1, 2]])
def test_the_axes_may_be_named(axes):
    masks = scattered(4, 5, 6, share=0.3)
    close(signed_distance(masks, axes=axes), np.stack([signed(mask) for mask in masks]))


@pytest.mark.backend_free
def test_one_axis_is_a_line():
    masks = scattered(4, 9, share=0.3)
    close(signed_distance(masks, axes=(1,)), np.stack([signed(line) for line in masks]))


@pytest.mark.backend_free
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", "float32", "float64"])
def test_masks_are_of_any_dtype(dtype):
    mask = MASKS["random"]
    np.testing.assert_array_equal(signed_distance(mask.astype(dtype)), signed_distance(mask))
    half = np.where(mask, 0.51, 0.5)
    np.testing.assert_array_equal(signed_distance(half), signed_distance(mask))
    np.testing.assert_array_equal(signed_distance(mask.tolist()), signed_distance(mask))


@pytest.mark.backend_free
@pytest.mark.parametrize("axes", [(), (2,), (0, -3)])
def test_axes_that_are_not_there_are_an_error(axes):
    with raises(ValueError, "`axes` of signed_distance", f"axes={axes!r}", "shape (20, 23)"):
        signed_distance(MASKS["random"], axes=axes)


@pytest.mark.backend_free
def test_a_number_is_no_mask():
    with raises(ValueError, "`axes` of signed_distance", "shape ()"):
        signed_distance(1.0)
