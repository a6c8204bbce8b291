"""Sizes that TensorFlow learns only when it runs: the numbers of known ones, or an error."""

import keras
import numpy as np
import pytest

import combined_losses as cl
from combined_losses._numerics.distances import to_other_kind
from tests.composite.children import value
from tests.contracts.registry import CASES, VARIANTS
from tests.gradients import gradient
from tests.processes import run_python
from tests.test_distances import MASKS

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="elsewhere all sizes are known"
)


def unknown(array):
    """The shape of an array whose last axis alone is known, where it has more than two."""
    import tensorflow as tf

    array = np.asarray(array)
    last = [array.shape[-1]] if array.ndim > 2 else [None] * min(array.ndim, 1)
    return tf.TensorSpec([None] * (array.ndim - len(last)) + last, array.dtype)


def in_graph(function, *data, known_last=False, **options):
    """What a function gives that is compiled for arrays of any size."""
    import tensorflow as tf

    data = [np.asarray(array) for array in data]
    signature = [unknown(array) for array in data]
    if known_last:
        signature = [
            tf.TensorSpec([*s.shape[:-1], d.shape[-1]], s.dtype)
            for s, d in zip(signature, data, strict=True)
        ]
    return tf.function(function, input_signature=signature, **options)(*data)


def slope_in_graph(loss, *data):
    import tensorflow as tf

    def slope(y_true, y_pred, *weight):
        with tf.GradientTape() as tape:
            tape.watch(y_pred)
            total = loss(y_true, y_pred, *weight)
        return tape.gradient(total, y_pred)

    return in_graph(slope, *data, known_last=True)


@pytest.mark.parametrize("off", [False, True], ids=["plain", "arguments and weights"])
@pytest.mark.parametrize("case", [*CASES, *VARIANTS], ids=lambda case: case.name)
def test_every_loss_has_the_numbers_of_known_sizes(case, off):
    loss = case.loss(**{**case.required, **(case.arguments if off else {})})
    weight = [np.linspace(0.0, 1.0, len(case.y_pred), dtype="float32")] if off else []
    data = [case.y_true, case.y_pred, *weight]
    found = np.asarray(in_graph(loss, *data, known_last=True))
    np.testing.assert_allclose(found, value(loss, *data), rtol=2e-5, atol=2e-6)
    expected = gradient(lambda p: loss(case.y_true, p, *weight), case.y_pred)
    found = np.asarray(slope_in_graph(loss, *data))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * scale)


@pytest.mark.parametrize("known", ["target", "prediction"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.loss.__name__)
def test_every_loss_has_the_same_number_where_one_of_both_is_known(case, known):
    """As with images that a data set decodes, and a model of one size."""
    import tensorflow as tf

    loss, data = case.make(), [np.asarray(case.y_true), np.asarray(case.y_pred)]
    last = [1 if one == known else -1 for one in ("target", "prediction")]
    signature = [
        tf.TensorSpec([*[None] * a.ndim, *a.shape[at:]][-a.ndim :], a.dtype)
        for a, at in zip(data, last, strict=True)
    ]
    found = tf.function(loss, input_signature=signature)(*data)
    np.testing.assert_allclose(np.asarray(found), value(loss, *data), rtol=2e-5, atol=2e-6)


SMALL = {
    "SSIM": (lambda: cl.losses.SSIM(), (2, 5, 20, 1)),
    "SSIM, one side": (lambda: cl.losses.SSIM(), (2, 20, 10, 1)),
    "MultiScaleSSIM": (lambda: cl.losses.MultiScaleSSIM(), (2, 48, 48, 1)),
    "SobelEdge": (lambda: cl.losses.SobelEdge(), (2, 2, 5, 1)),
    "STFT": (lambda: cl.losses.STFT(64, 16, 64), (2, 32)),
    "MultiResolutionSTFT": (lambda: cl.losses.MultiResolutionSTFT(), (2, 900)),
    "MelSTFT": (lambda: cl.losses.MelSTFT(mels=4, fft_size=64, hop=16, window=64), (2, 32)),
    "MultiScale": (lambda: cl.wrappers.MultiScale("mse", (1, 4)), (2, 3, 3, 1)),
}


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "XLA"])
@pytest.mark.parametrize("make, shape", SMALL.values(), ids=SMALL)
def test_what_is_too_small_is_an_error_of_ours(make, shape, compiled):
    """Never a mean over nothing, which is 0 or NaN."""
    y_true, y_pred = np.random.default_rng(0).random((2, *shape)).astype("float32")
    with pytest.raises(ValueError, match="Received: ") as known:
        make()(y_true, y_pred)
    with pytest.raises(Exception) as found:
        in_graph(make(), y_true, y_pred, jit_compile=compiled)
    first = str(known.value).split(":")[0].split(", and the smallest")[0].split()[:6]
    said = str(found.value).replace("\\'", "'").replace("_", " ")
    assert " ".join(first).replace("_", " ").replace("'", "")[:20] in said.replace("'", "")


@pytest.mark.parametrize("compiled", [False, True], ids=["graph", "XLA"])
def test_an_output_that_is_finer_than_the_target_is_an_error_of_ours(compiled):
    loss = cl.wrappers.DeepSupervision("mse")
    y_true, y_pred = np.zeros((2, 4, 4, 1), "float32"), np.zeros((2, 5, 4, 1), "float32")
    with pytest.raises(Exception, match=r"at.least.as.fine"):
        in_graph(lambda y, p: loss(y, {"full": p}), y_true, y_pred, jit_compile=compiled)


@pytest.mark.parametrize(
    "name, compiled", [*((name, False) for name in MASKS), ("random", True), ("volume", True)]
)
def test_distances_are_those_of_known_sizes(name, compiled):
    mask = MASKS[name]
    masks = np.stack([mask, ~mask, np.roll(mask, 1)])[..., None]
    axes = tuple(range(1, masks.ndim - 1))
    found = in_graph(lambda m: to_other_kind(m, axes), masks, jit_compile=compiled)
    expected = keras.ops.convert_to_numpy(to_other_kind(keras.ops.convert_to_tensor(masks), axes))
    np.testing.assert_array_equal(found, expected)


_PEAK = """
import re
import numpy as np, tensorflow as tf, combined_losses as cl
loss, size, n = cl.losses.{loss}(), {size}, 512
signature = [tf.TensorSpec((None, size, size, 1), "float32")] * 2
function = tf.function(lambda y, p: loss(y, p), input_signature=signature)
y, p = np.random.default_rng(0).random((2, 1, n, n, 1)).astype("float32")
function.get_concrete_function()
peak = lambda: int(re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1])
before = peak()
value = float(function((y > 0.999).astype("float32"), p))
print(peak() - before, value)
"""


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["SignedDistanceBoundary", "HausdorffDistance"])
def test_distances_take_at_most_twice_the_memory_of_known_sizes(loss, tmp_path):
    """The peak of a process of its own, above what it had before."""
    peaks, values = zip(
        *(
            run_python(_PEAK.format(loss=loss, size=size), tmp_path).split()[-2:]
            for size in (512, None)
        ),
        strict=True,
    )
    assert float(values[0]) == pytest.approx(float(values[1]), rel=1e-5)
    assert float(peaks[1]) < 2 * float(peaks[0])


@pytest.mark.parametrize("mining", ["hard", "semihard", "all"])
def test_triplets_of_no_samples_are_0(mining):
    loss = cl.losses.TripletHard(mining=mining)
    assert float(in_graph(loss, np.zeros(0, "int32"), np.zeros((0, 4), "float32"))) == 0
