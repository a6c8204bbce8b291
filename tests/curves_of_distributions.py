"""The curves of the losses of distributions and of sets of samples, for docs/which_loss.md."""

from statistics import NormalDist

import numpy as np

from tests.curves_of_losses import ERROR, Curve, Picture, make, picture_of, values


def in_two(loss, errors, second) -> np.ndarray:
    """The values at targets of 0, with predictions of two numbers."""
    pairs = np.stack(np.broadcast_arrays(errors, second), -1)
    return values(loss, np.zeros((len(errors), 1)), pairs.astype(float))


@picture_of("LaplaceNLL")
def laplace_nll():
    curves = [
        Curve(f"scale {b}", ERROR, in_two(make("LaplaceNLL"), ERROR, np.log(b)))
        for b in (0.5, 1, 2)
    ]
    return Picture("error of the median", curves, y_max=5)


@picture_of("StudentTNLL")
def student_t_nll():
    far = np.linspace(-8, 8, 81)
    curves = [Curve(f"df = {df}", far, in_two(make("StudentTNLL", df), far, 0)) for df in (1, 4)]
    curves.append(Curve("Gaussian", far, in_two(make("GaussianNLL"), far, 0), other=True))
    return Picture("error of the centre", curves, y_max=10)


@picture_of("LogNormalNLL")
def log_normal_nll():
    y = np.linspace(0.05, 4, 80)
    curves = [
        Curve(
            f"σ = {s}",
            y,
            values(make("LogNormalNLL"), y[:, None], np.tile([0.0, 2 * np.log(s)], (80, 1))),
        )
        for s in (0.5, 1)
    ]
    return Picture("target; the median is 1", curves, y_max=5)


@picture_of("NegativeBinomialNLL")
def negative_binomial_nll():
    counts, m = np.arange(21.0), np.log(5.0)
    curves = [
        Curve(
            f"size {r}",
            counts,
            values(make("NegativeBinomialNLL"), counts[:, None], np.tile([m, np.log(r)], (21, 1))),
        )
        for r in (1, 5)
    ]
    poisson = np.tile([m, 20.0], (21, 1))
    of_poisson = values(make("NegativeBinomialNLL"), counts[:, None], poisson)
    return Picture("count; the mean is 5", [*curves, Curve("Poisson", counts, of_poisson, True)])


@picture_of("MixtureNLL")
def mixture_nll():
    y = np.linspace(-3, 3, 61)
    two = np.tile([0.0, 0.0, -1.5, 1.5, np.log(0.25), np.log(0.25)], (61, 1))
    one = np.tile([0.0, np.log(1.5**2 + 0.25)], (61, 1))
    curves = [
        Curve("two components", y, values(make("MixtureNLL", 2), y[:, None], two)),
        Curve("one Gaussian", y, values(make("GaussianNLL"), y[:, None], one), other=True),
    ]
    return Picture("target; the answers are ±1.5", curves, y_max=4)


@picture_of("QuantileCRPS")
def quantile_crps():
    """Quantiles of N(0, 1)."""
    curves = []
    for number in (3, 19):
        levels = [(k + 1) / (number + 1) for k in range(number)]
        y_pred = np.tile([NormalDist().inv_cdf(q) for q in levels], (61, 1))
        found = values(make("QuantileCRPS", levels), ERROR[:, None], y_pred)
        curves.append(Curve(f"{number} levels", ERROR, found))
    gaussian = values(make("GaussianCRPS"), ERROR[:, None], np.zeros((61, 2)))
    curves.append(Curve("Gaussian", ERROR, gaussian, other=True))
    return Picture("target; N(0, 1) is predicted", curves)


@picture_of("EnsembleCRPS")
def ensemble_crps():
    """The mean over targets of N(0, 1)."""
    spread = np.linspace(0, 3, 31)
    y = np.array([[NormalDist().inv_cdf((k + 0.5) / 200)] for k in range(200)])
    curves = []
    for fair in (True, False):
        loss = make("EnsembleCRPS", fair=fair)
        drawn = np.random.default_rng(1).normal(size=(200, 5))
        found = np.array([values(loss, y, s * drawn).mean() for s in spread])
        curves.append(Curve("fair" if fair else "fair=False", spread, found))
    return Picture("spread of 5 members; that of targets is 1", curves)


@picture_of("EnergyScore")
def energy_score():
    """Pairs of targets of correlation 0.8; each target alone is N(0, 1)."""
    rng, correlation = np.random.default_rng(0), np.linspace(-0.95, 0.95, 20)

    def pairs(r, *shape):
        first, other = rng.normal(size=(2, *shape))
        return np.stack([first, r * first + np.sqrt(1 - r**2) * other], axis=-1)

    y, noise = pairs(0.8, 4000), rng.normal(size=(2, 4000, 8))
    found, alone = [], []
    for r in correlation:
        members = np.stack([noise[0], r * noise[0] + np.sqrt(1 - r**2) * noise[1]], axis=-1)
        found.append(values(make("EnergyScore"), y, members).mean())
        loss = make("EnsembleCRPS")
        alone.append(sum(values(loss, y[:, k], members[..., k]).mean() for k in (0, 1)))
    curves = [
        Curve("energy score", correlation, np.array(found)),
        Curve("of each alone", correlation, np.array(alone), other=True),
    ]
    return Picture("correlation of the members; 0.8 is right", curves)


# Sets of samples: eight members, and the same ones moved.

FAR = np.linspace(0, 4, 41)


def of_moved(loss, columns=1) -> np.ndarray:
    members = np.random.default_rng(0).normal(size=(8, columns))
    return np.array([values(loss, members, members + step)[0] for step in FAR / columns**0.5])


@picture_of("MMD")
def mmd():
    curves = [Curve(f"bandwidth {s}", FAR, of_moved(make("MMD", [s]))) for s in (0.5, 2.0)]
    curves.append(Curve("0.5, 1, 2, 4", FAR, of_moved(make("MMD", [0.5, 1.0, 2.0, 4.0]))))
    return Picture("by how much a set is moved", curves)


@picture_of("SlicedWasserstein")
def sliced_wasserstein():
    angles = np.linspace(0, np.pi, 50, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=-1).tolist()
    curves = [
        Curve("one dimension", FAR, of_moved(make("SlicedWasserstein", [[1.0]]))),
        Curve("two", FAR, of_moved(make("SlicedWasserstein", circle), 2)),
        Curve("MMD", FAR, of_moved(make("MMD", [1.0])), other=True),
    ]
    return Picture("by how much a set is moved", curves, y_max=8)


@picture_of("Sinkhorn")
def sinkhorn():
    curves = [
        Curve("debiased", FAR, of_moved(make("Sinkhorn", 0.5))),
        Curve("not", FAR, of_moved(make("Sinkhorn", 0.5, debias=False))),
        Curve("MMD", FAR, of_moved(make("MMD", [1.0])), other=True),
    ]
    return Picture("by how much a set is moved", curves, y_max=8)
