"""How do I find masks that overlap, with a curve for each? Discs, squares and bars on one page."""

import keras
import numpy as np

import combined_losses as cl

NAMES, SIDE = ["disc", "square", "bar"], 24
COLOURS = np.array([[1.0, 0.4, 0.0], [0.0, 1.0, 0.4], [0.4, 0.0, 1.0]])


def make_pages(count, rng, missing=0.0):
    """Coloured shapes that shine through each other; some masks are not known: NaN."""
    centres = rng.integers(6, SIDE - 6, (2, count, 3, 1, 1))
    disc, square, bar = np.moveaxis(np.mgrid[:SIDE, :SIDE][:, None, None] - centres, 2, 0)
    masks = [np.hypot(*disc) < 6, np.abs(square).max(axis=0) < 5, np.abs(bar[0]) < 2]
    masks = np.stack(masks, axis=-1).astype("float32")
    pages = masks @ COLOURS + rng.normal(0, 0.5, (count, SIDE, SIDE, 3))
    unknown = rng.random((count, 1, 1, 3)) < missing
    return pages.astype("float32"), np.where(unknown, np.nan, masks).astype("float32")


def overlapping():
    """Each mask has a sigmoid, a curve, and pages on which it is known."""
    dice = cl.losses.Dice(from_logits=True, multilabel=True)
    return cl.CompositeLoss(
        {
            "dice": cl.wrappers.Masked(cl.wrappers.PerChannel(dice, names=NAMES)),
            "focal": cl.wrappers.Masked(
                cl.losses.CategoricalFocal(from_logits=True, multilabel=True)
            ),
        }
    )


def exclusive():
    """The same shapes as classes: a softmax gives each pixel away to one of them."""
    dice = cl.wrappers.PerChannel(cl.losses.Dice(), names=NAMES)
    return cl.CompositeLoss({"dice": cl.wrappers.Masked(cl.wrappers.Activated(dice, "softmax"))})


def train(loss, pages, masks, seed):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Conv2D(12, 3, padding="same", activation="relu") for _ in range(2)]
    model = cl.Sequential([keras.Input((SIDE, SIDE, 3)), *layers, keras.layers.Conv2D(3, 1)])
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    return model, model.fit(pages, masks, batch_size=16, epochs=8, verbose=0).history


def overlap(found, true):
    """The intersection over union of each mask, of all pages together."""
    return (found & true).sum(axis=(0, 1, 2)) / (found | true).sum(axis=(0, 1, 2))


def main(seed=0):
    rng = np.random.default_rng(0)
    pages, masks = make_pages(160, rng, missing=0.3)
    new_pages, true = make_pages(64, rng)
    model, history = train(overlapping(), pages, masks, seed)
    logits = keras.ops.convert_to_numpy(model(new_pages))
    softmax, _ = train(exclusive(), pages, masks, seed)
    shares = keras.ops.convert_to_numpy(keras.ops.softmax(softmax(new_pages)))
    several = (true > 0.5).sum(axis=-1) > 1  # shapes on one pixel
    return {
        **dict(zip(NAMES, overlap(logits > 0, true > 0.5), strict=True)),
        **{f"{name}, last Dice": history[f"dice/{name}_loss"][-1] for name in NAMES},
        "found where they overlap": (logits > 0)[several][true[several] > 0.5].mean(),
        "found by a softmax": (shares > 0.5)[several][true[several] > 0.5].mean(),
    }


if __name__ == "__main__":
    print(main())
