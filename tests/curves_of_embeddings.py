"""Pictures of the losses of embeddings, see `tests/curves_of_losses.py`."""

import numpy as np

from tests.curves_of_losses import MSE, Curve, Picture, make, picture_of, values


def batches(loss, labels, embeddings) -> np.ndarray:
    """The mean over the anchors of each of many batches."""
    labels = np.asarray(labels, "int32")
    return np.array([values(loss, labels, batch).mean() for batch in np.array(embeddings)])


def on_circle(angles) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


@picture_of("Contrastive")
def contrastive():
    d = np.linspace(0, 1.5, 31)
    loss = make("Contrastive")
    curves = [
        Curve(label, d, values(loss, np.full((31, 1), y), d[:, None]))
        for label, y in (("similar", 1.0), ("different", 0.0))
    ]
    return Picture("distance of the pair", curves)


def spread(loss) -> np.ndarray:
    """Two classes, 3 apart; the samples of a class are `width` apart."""
    width = np.linspace(0, 2, 21)
    return batches(loss, [0, 0, 1, 1], [[[0, 0], [0, w], [3, 0], [3, w]] for w in width])


@picture_of("ContrastivePairs")
def contrastive_pairs():
    width = np.linspace(0, 2, 21)
    curves = [
        Curve("pairs", width, spread(make("ContrastivePairs"))),
        Curve("triplets", width, spread(make("TripletSemiHard")), other=True),
    ]
    return Picture("width of classes that are 3 apart", curves)


@picture_of("TripletSemiHard")
def triplet():
    far = np.linspace(0, 3, 31)
    curves = []
    for margin in (1.0, 0.5):
        loss = make("TripletSemiHard", margin)
        triplets = [[[0, 0], [0, 1], [x, 0.5]] for x in far]
        curves.append(Curve(f"margin {margin}", far, batches(loss, [0, 0, 1], triplets)))
    return Picture("distance of the other class", curves)


def over_angle(name, labels, embed) -> Picture:
    degrees = np.linspace(0, 150, 31)
    embeddings = [on_circle(embed(a)) for a in np.radians(degrees)]
    curves = []
    for temperature in (0.1, 0.5):
        y = batches(make(name, temperature), labels, embeddings)
        curves.append(Curve(f"temperature {temperature}", degrees, y))
    return Picture("angle between the two of a class", curves)


@picture_of("NTXent")
def nt_xent():
    return over_angle("NTXent", [0, 0, 1, 1], lambda a: np.array([-a / 2, a / 2, np.pi, np.pi]))


@picture_of("SupervisedContrastive")
def supervised_contrastive():
    """Three samples of a class, the outer ones `a` apart, and three of another class."""
    others = [np.pi] * 3
    return over_angle(
        "SupervisedContrastive", [0] * 3 + [1] * 3, lambda a: np.array([-a / 2, 0, a / 2, *others])
    )


@picture_of("TripletHard")
def triplet_hard():
    """One sample of a class of four strays towards the other class, which is 3 away."""
    stray = np.linspace(0, 4, 41)
    far = [[[0, 0], [0, 0.5], [0, 1], [x, 0.5], [3, 0], [3, 1]] for x in stray]
    curves = [
        Curve(mining, stray, batches(make("TripletHard", mining=mining), [0] * 4 + [1] * 2, far))
        for mining in ("hard", "all")
    ]
    return Picture("how far one sample strays", curves)


@picture_of("LiftedStructure")
def lifted_structure():
    """A pair that is 1 apart, and negatives on a circle around its middle."""
    far = np.linspace(0.5, 5, 31)
    curves = []
    for number in (1, 10):
        around = on_circle(np.linspace(0.5, 0.5 + np.pi, number, endpoint=False))
        pair = [[-0.5, 0], [0.5, 0]]
        embeddings = [[*pair, *(x * around).tolist()] for x in far]
        labels = [0, 0, *range(1, number + 1)]
        y = batches(make("LiftedStructure"), labels, embeddings)
        curves.append(Curve(f"negatives: {number}", far, y))
    return Picture("distance of the negatives", curves)


@picture_of("MultiSimilarity")
def multi_similarity():
    """Two samples, of one class or of two."""
    cosine = np.linspace(-0.2, 1, 41)
    pairs = [on_circle(np.array([0, a])) for a in np.arccos(cosine)]
    curves = [
        Curve(label, cosine, batches(make("MultiSimilarity"), labels, pairs))
        for label, labels in (("of one class", [0, 0]), ("of two", [0, 1]))
    ]
    return Picture("cosine of two samples", curves)


@picture_of("NPairs")
def n_pairs():
    """Directions that are right: only lengths differ."""
    length = np.linspace(0, 4, 41)
    right = [x * on_circle(np.array([0, 0, np.pi / 2, np.pi / 2])) for x in length]
    curves = [
        Curve(label, length, batches(loss, [0, 0, 1, 1], right))
        for label, loss in (("l2 = 0", make("NPairs")), ("l2 = 0.05", make("NPairs", 0.05)))
    ]
    angles = Curve("NTXent", length[1:], batches(make("NTXent"), [0, 0, 1, 1], right[1:]), True)
    return Picture("length of the embeddings", [*curves, angles])


@picture_of("ProxyAnchor")
def proxy_anchor():
    """One sample, two proxies at right angles."""
    degrees = np.linspace(0, 90, 31)
    samples = [on_circle(np.array([a])) for a in np.radians(degrees)]
    curves = []
    for scale in (32.0, 8.0):
        loss = make("ProxyAnchor", 2, 2, scale=scale, proxies=[[1.0, 0.0], [0.0, 1.0]])
        curves.append(Curve(f"scale {scale:.0f}", degrees, batches(loss, [0], samples) / scale))
    return Picture("angle from its proxy", curves, y_label="loss / scale")


def apart() -> np.ndarray:
    """Degrees between four pairs, from all in one place to a quarter of the circle."""
    return np.linspace(0, 90, 31)


@picture_of("PairedContrastive")
def paired_contrastive():
    """Partners are equal: the squared error sees nothing wrong, wherever the others are."""
    embeddings = [on_circle(np.radians(a) * np.arange(4)) for a in apart()]
    curves = [
        Curve(f"T = {t}", apart(), of_views(make("PairedContrastive", t), embeddings))
        for t in (0.07, 0.5)
    ]
    plain = Curve("MSE", apart(), of_views(MSE, embeddings), other=True)
    return Picture("angle between four pairs", [*curves, plain])


def of_views(loss, embeddings, others=None) -> np.ndarray:
    """The mean over each of many batches of two views, which are equal unless `others` are."""
    others = embeddings if others is None else others
    return np.array([values(loss, x, z).mean() for x, z in zip(embeddings, others, strict=True)])


def samples(number=64) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(number, 8)).astype("float32")


@picture_of("BarlowTwins")
def barlow_twins():
    """Features that are more and more one and the same, in two views that agree."""
    share = np.linspace(0, 1, 31)
    x = samples()
    embeddings = [s * x[:, :1] + (1 - s) * x for s in share]
    curves = [
        Curve(f"weight {weight}", share, of_views(make("BarlowTwins", weight), embeddings))
        for weight in (0.05, 0.02)
    ]
    plain = Curve("MSE", share, of_views(MSE, embeddings), other=True)
    return Picture("how much features share", [*curves, plain])


@picture_of("VICReg")
def vicreg():
    """The embeddings of two views that agree collapse, from the right to the left."""
    width = np.linspace(0, 2, 41)
    embeddings = [w * samples() for w in width]
    y = of_views(make("VICReg", covariance=0.0), embeddings)
    plain = Curve("MSE", width, of_views(MSE, embeddings), other=True)
    return Picture("standard deviation of the features", [Curve("VICReg", width, y), plain])
