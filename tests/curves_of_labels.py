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


@picture_of("SparseCrossEntropy")
def sparse_cross_entropy():
    right = np.linspace(0.02, 0.999, 60)
    p = np.stack([right, *[(1 - right) / 9] * 9], axis=-1)
    labels = np.zeros(60, "int32")
    curves = [
        Curve(
            f"s = {s}",
            right,
            values(make("SparseCrossEntropy", s), labels, p),
            other=not s,
        )
        for s in (0.1, 0.3, 0)
    ]
    return Picture("probability of the right of ten tokens", curves, y_max=4)


@picture_of("ZLoss")
def z_loss():
    added = np.linspace(-4, 4, 41)
    z = np.log([[0.1, 0.2, 0.7]]) + added[:, None]
    labels = np.zeros(41, "int32")
    entropy = values(make("SparseCrossEntropy", from_logits=True), labels, z)
    curves = [
        Curve("ZLoss", added, values(make("ZLoss"), labels, z)),
        Curve("cross-entropy", added, entropy, other=True),
    ]
    return Picture("number added to all logits", curves)


@picture_of("Distillation")
def distillation():
    """Three classes, of which the teacher says that one is near the right one."""
    added = np.linspace(-8, 8, 41)
    teacher = np.broadcast_to(np.array([6.0, 3.0, 0.0]), (41, 3))
    student = np.stack([teacher[:, 0], teacher[:, 1] + added, teacher[:, 2]], axis=-1)
    curves = [
        Curve(f"T = {t}", added, values(make("Distillation", t), teacher, student))
        for t in (1.0, 4.0)
    ]
    labels = np.zeros(41, "int32")
    entropy = values(make("SparseCrossEntropy", from_logits=True), labels, student)
    curves.append(Curve("cross-entropy", added, entropy, other=True))
    return Picture("student's logit of the near class, moved", curves)


@picture_of("InBatchSoftmax")
def in_batch_softmax():
    """A query between its own item and a popular one."""
    angle = np.linspace(0, 90, 46)
    curves, log_q = [], np.log([0.1, 0.9])
    for name, own in (("with log_q", log_q), ("without", None)):
        loss = make("InBatchSoftmax", 0.3, log_q=own)
        y = []
        for at in np.radians(angle):
            query, other = [np.cos(at), np.sin(at)], [0.0, 1.0]
            pairs = np.array([[query, [1.0, 0.0]], [other, [0.0, 1.0]]])
            y.append(values(loss, np.array([0, 1], "int32"), pairs)[0])
        curves.append(Curve(name, angle, np.array(y), other=own is None))
    return Picture("degrees from its item to another", curves)
