"""What the pictures show of losses of ordered classes, of margins, and of trees of classes."""

import numpy as np

from tests.curves_of_losses import Curve, Picture, make, picture_of, values


@picture_of("Ordinal")
def ordinal():
    """Seven grades; the network is 80 % sure of one, each answer is what that says."""
    grades, truth = np.arange(7), np.zeros(7, "int32")
    shares = np.full((7, 7), 0.2 / 6) + (0.8 - 0.2 / 6) * np.eye(7)
    more = 1 - np.cumsum(shares, axis=-1)[:, :-1]
    chain = more / np.concatenate([np.ones((7, 1)), more[:, :-1]], axis=-1)
    entropy = values(make("SparseCategoricalFocal", 0.0), truth, shares)
    curves = [
        Curve("coral", grades, values(make("Ordinal"), truth, more)),
        Curve("corn", grades, values(make("Ordinal", "corn"), truth, chain)),
        Curve("cross-entropy", grades, entropy, other=True),
    ]
    return Picture("grades between truth and prediction", curves)


@picture_of("ArcFace")
def arc_face():
    angle = np.linspace(0, 180, 61)
    cosines = np.stack([np.cos(np.radians(angle)), np.full(61, 0.5)], axis=-1)
    labels = np.zeros(61, "int32")
    curves = [
        Curve(name, angle, values(make(name, scale=10.0), labels, cosines))
        for name in ("ArcFace", "CosFace")
    ]
    plain = values(make("ArcFace", 0.0, 10.0), labels, cosines)
    curves.append(Curve("no margin", angle, plain, other=True))
    return Picture("degrees to the centre; 60 to another", curves)


@picture_of("TreeCrossEntropy")
def tree_cross_entropy():
    """All that the right class lacks is given to a stranger."""
    right = np.linspace(0.05, 1, 39)
    p = np.stack([right, np.zeros(39), 1 - right], axis=-1)
    labels, levels = np.zeros(39, "int32"), [[0, 0, 1]]
    curves = [
        Curve(
            f"decay {d}",
            right,
            values(make("TreeCrossEntropy", levels, d), labels, p),
            other=d == 0,
        )
        for d in (-0.5, 0.5, 0)
    ]
    return Picture("probability; the rest is a stranger's", curves)
