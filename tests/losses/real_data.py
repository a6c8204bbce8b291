"""Real data that scikit-learn carries: two photographs with truths made by a rule, two tables.

Opening a photograph takes Pillow, which Matplotlib, and so the extra `demo`, brings along.
"""

import functools

import numpy as np
from sklearn.datasets import load_diabetes, load_digits, load_sample_image

# Photographs: pairs of an image, (1, 64, 96, 3), each colour standardised, and its truth.


def petals():
    """`flower.jpg`: where it is red rather than blue, a dahlia, `(1, 64, 96, 1)`; 28 %."""
    colours = _small("flower.jpg")
    return _standardised(colours)[None], _channels(_is_petal(colours))


def shadow_leaf_petal():
    """`flower.jpg` in three classes, `(1, 64, 96, 3)`: what is no petal is dark, or a lit leaf."""
    colours = _small("flower.jpg")
    petal, lit = _is_petal(colours), colours.max(axis=-1) > 0.3
    return _standardised(colours)[None], _channels(~petal & ~lit, ~petal & lit, petal)


def eaves():
    """`china.jpg`: the dark green eaves of a pagoda, lines of 1 or 2 pixels; 6 %."""
    colours = _small("china.jpg")
    red, green, _ = np.moveaxis(colours, -1, 0)
    dark = colours.mean(axis=-1) < 0.55
    return _standardised(colours)[None], _channels(dark & (green - red > 0.03))


@functools.cache
def _small(photograph):
    """The middle of a photograph, `(64, 96, 3)` in [0, 1], each pixel the mean of 6 x 6."""
    middle = load_sample_image(photograph)[20:404, 32:608] / 255
    return middle.reshape(64, 6, 96, 6, 3).mean(axis=(1, 3))


def _is_petal(colours):
    return colours[..., 0] - colours[..., 2] > 0.2


def _channels(*masks):
    return np.stack(masks, axis=-1)[None].astype("float32")


# Tables.


def diabetes():
    """442 patients, `(442, 10)`, and the progress of their disease, `(442, 1)`; standardised."""
    x, y = load_diabetes(return_X_y=True)
    return _standardised(x), _standardised(y[:, None])


def digits():
    """600 handwritten digits, `(600, 64)`: every pixel of mean 0, all of them of deviation 1."""
    x = load_digits().data[:600]
    return ((x - x.mean(axis=0)) / x.std()).astype("float32")


def _standardised(columns):
    """Columns of mean 0 and deviation 1."""
    axes = tuple(range(columns.ndim - 1))
    columns = (columns - columns.mean(axis=axes)) / columns.std(axis=axes)
    return columns.astype("float32")
