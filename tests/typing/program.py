"""A program as a user would write it: every public name, and what type checkers make of it.

`mypy --strict` and pyright find no error in it; `test_types.py` asks them, and runs it.
"""

from pathlib import Path
from typing import Any, assert_type

import keras  # type: ignore[import-untyped]  # Keras has no types
import numpy as np

import combined_losses as cl
from combined_losses.diagnosis import Diagnosis, diagnose

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@keras.saving.register_keras_serializable("program")  # type: ignore[untyped-decorator]  # Keras's
def under(y_true: Numbers, y_pred: Numbers) -> Any:
    return keras.ops.mean(keras.ops.relu(y_true - y_pred), axis=-1)


class Understock(cl.losses.Loss):
    """A loss of the user's own."""

    def __init__(self, cost: float = 2.0, *, name: str | None = None) -> None:
        super().__init__(name=name, reduction="sum")
        self.cost = cost

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.relu(self.cost * (y_true - y_pred)), axis=-1)


class Doubled(cl.wrappers.Wrapper):
    """A wrapper of the user's own."""

    def see(self, batch: Any, label: str) -> Any:
        return batch.replaced(y_true=2 * batch.y_true, y_pred=2 * batch.y_pred)


class InverseMagnitude(cl.weightings.Weighting):
    """A rule of the user's own."""

    needs = frozenset({"values", "history"})

    def initial_state(self, k: int) -> dict[str, Any]:
        return {"mean": [1.0] * k}

    def rule(self, values: Any, state: dict[str, Any], live: Any) -> Any:
        mean = keras.ops.add(0.9 * state["mean"], 0.1 * values)
        return keras.ops.reciprocal(mean), {"mean": mean}


class Equal(cl.weightings.Weighting):
    """A rule that is all of the user's own."""

    def weigh(
        self, values: Any = None, gramian: Any = None, rows: Any = None, training: bool = True
    ) -> Any:
        return keras.ops.ones((self.num_components,))


class Line(cl.ComponentMetricsMixin, keras.Model):  # type: ignore[misc]  # Keras has no types
    """A model of the user's own."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = keras.layers.Dense(1)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)


def composite() -> cl.CompositeLoss:
    loss = cl.CompositeLoss(
        {"mse": "mse", "under": under, "mae": keras.losses.MeanAbsoluteError()},
        weights={"under": 0.5, "mae": cl.weightings.LinearRamp(steps=10, end=0.5)},
        weighting=None,
        reduction="per_component",
        on_nonfinite="skip",
        name="total",
        dtype="float32",
    )
    assert_type(loss.weights, dict[str, float])
    assert_type(loss.weight_of("mse"), float)
    assert_type(loss.names, tuple[str, ...])
    assert_type(loss.component_names, tuple[str, ...])
    assert_type(loss.settable_names, tuple[str, ...])
    assert_type(loss.name, str)
    assert_type(loss.get_config(), dict[str, Any])
    assert_type(cl.CompositeLoss.from_config(loss.get_config()), cl.CompositeLoss)
    loss.set_weight("under", 1)
    for name, inside in loss.losses.items():
        print(name.upper(), inside.name)
    return loss


def operators() -> cl.CompositeLoss:
    mse, mine = cl.as_loss("mse"), Understock()
    assert_type(mse + mine, cl.CompositeLoss)
    assert_type("mse" + mine, cl.CompositeLoss)
    assert_type(mine + under_zero, cl.CompositeLoss)
    assert_type(0.5 * mine, cl.CompositeLoss)
    assert_type(mine * 2, cl.CompositeLoss)
    assert_type(mine / 2, cl.CompositeLoss)
    assert_type(0.7 * cl.as_loss(under) + 0.3 * cl.as_loss(keras.losses.Huber()), cl.CompositeLoss)
    assert_type(0.5 * (mse + mine) + "mae", cl.CompositeLoss)
    terms = [0.5 * mse, 0.5 * mine]
    model_loss = sum(terms)  # to a type checker the sum of no terms is 0
    assert not isinstance(model_loss, int)
    assert_type(model_loss, cl.CompositeLoss)
    assert_type(sum(terms, start=terms[0]), cl.CompositeLoss)
    return cl.CompositeLoss([mse, mine], [0.5, 1])


def own_loop(loss: cl.CompositeLoss) -> None:
    y_true, y_pred = np.ones((4, 1)), np.zeros((4, 1))
    with loss.training_step():
        print(float(loss(y_true, y_pred, sample_weight=np.ones(4))))
    loss.end_epoch()
    parts = loss.components(y_true, y_pred)
    assert_type(parts, dict[str, Any])
    print({name.upper(): float(value) for name, value in parts.items()})
    print(float(loss.component("mse", y_true, y_pred)))
    print([variable.shape for variable in [*loss.variables, *loss.trainable_variables]])


def losses() -> list[cl.losses.Loss]:
    return [
        cl.losses.AsymmetricError(under_weight=2, over_weight=1.0, power=2.0),
        cl.losses.AsymmetricFocal(gamma_pos=0.0, margin=0.1, from_logits=True),
        cl.losses.BetaNLL(beta=0.5, name="beta"),
        cl.losses.BinaryFocal(gamma=2.0, alpha=0.25, from_logits=True),
        cl.losses.BinaryFocal(alpha=[0.2, 0.8], pos_weight=2.0, label_smoothing=0.1),
        cl.losses.BoundaryDisagreement(axes=(1, 2)),
        cl.losses.CIoU(format="xyxy"),
        cl.losses.CategoricalFocal(class_weight=[1.0, 2.0]),
        cl.losses.CenterlineDice(iterations=3, data_format="channels_last"),
        cl.losses.Charbonnier(epsilon=1e-3, reduction="sum"),
        cl.losses.Contrastive(margin=1.0),
        cl.losses.ContrastivePairs(),
        cl.losses.DIoU(format="xywh"),
        cl.losses.Dice(smooth=1.0, include_background=False, from_logits=True),
        cl.losses.DistributionFocal(low=-1.0, high=1.0, from_logits=True),
        cl.losses.EIoU(format="xywh"),
        cl.losses.ErrorToSignal(pre_emphasis=0.95),
        cl.losses.EnergyScore(beta=0.5, fair=False),
        cl.losses.EnsembleCRPS(fair=True),
        cl.losses.Expectile(0.9),
        cl.losses.FocalTversky(gamma=0.75),
        cl.losses.GIoU(),
        cl.losses.GaussianCRPS(),
        cl.losses.GaussianKL(free_bits=0.1, over="batch", dtype="float64"),
        cl.losses.GaussianNLL(reduction=None),
        cl.losses.GeneralizedDice(weighting="square"),
        cl.losses.HausdorffDistance(alpha=2.0, spacing=0.5),
        cl.losses.IoU(),
        cl.losses.Jaccard(ignore_value=255, power=2, log=True),
        cl.losses.LaplaceNLL(),
        cl.losses.Linex(sharpness=-1.0),
        cl.losses.LiftedStructure(margin=2.0),
        cl.losses.LogNormalNLL(epsilon=1e-3),
        cl.losses.LovaszHinge(over="batch"),
        cl.losses.LovaszSoftmax(multilabel=True),
        cl.losses.MMD(bandwidths=[0.5, 2.0], unbiased=True),
        cl.losses.MatthewsCorrelation(smooth=1.0, over="batch", classes=[1, 2]),
        cl.losses.MixtureNLL(components=5),
        cl.losses.MultiScaleSSIM(max_value=255.0, power_factors=(0.5, 0.5)),
        cl.losses.MultiSimilarity(alpha=2.0, beta=40.0, base=0.4, epsilon=0.1),
        cl.losses.NPairs(l2=0.02),
        cl.losses.NTXent(temperature=0.5),
        cl.losses.NegativeBinomialNLL(name="counts"),
        cl.losses.PeakSignalToNoise(),
        cl.losses.Pinball(quantile=[0.1, 0.9]),
        cl.losses.PolyCrossEntropy(epsilon=2.0, class_weight=[1.0, 2.0]),
        cl.losses.QualityFocal(beta=1.0),
        cl.losses.QuantileCRPS([0.1, 0.5, 0.9]),
        cl.losses.SISDR(zero_mean=False),
        cl.losses.SNR(epsilon=1e-6),
        cl.losses.SIoU(theta=2.0, format="center_xywh"),
        cl.losses.SSIM(filter_size=7),
        cl.losses.SignedDistanceBoundary(spacing=[3.0, 1.0, 1.0]),
        cl.losses.SignedDistanceBoundary(precomputed=True),
        cl.losses.Sinkhorn(epsilon=0.1, iterations=20, debias=False, over="sample"),
        cl.losses.SlicedWasserstein(projections=20, power=1, seed=0),
        cl.losses.SobelEdge(),
        cl.losses.SparseCategoricalFocal(),
        cl.losses.StudentTNLL(df=4.0),
        cl.losses.SupervisedContrastive(),
        cl.losses.TotalVariation(),
        cl.losses.TripletHard(margin=None, mining="all", distance="cosine"),
        cl.losses.TripletSemiHard(),
        cl.losses.Tversky(fp_weight=0.3, fn_weight=0.7),
        cl.losses.UnderestimationPenalty(weight=1.0),
        cl.losses.Varifocal(alpha=0.5, gamma=1.0, from_logits=True),
        cl.losses.WeightedKappa(num_classes=5, over="sample", data_format="channels_first"),
        cl.losses.ArcFace(margin=0.3, scale=30.0, subcenters=3),
        cl.losses.CosFace(),
        cl.losses.Ordinal("corn", importance=[1.0, 2.0], from_logits=True),
        cl.losses.SparseCrossEntropy(0.1, ignore_class=0, from_logits=True),
        cl.losses.ZLoss(data_format="channels_last"),
        cl.losses.Distillation(temperature=4.0),
        cl.losses.InBatchSoftmax(temperature=0.1, log_q=[-1.0, -2.0]),
        cl.losses.TreeCrossEntropy([[0, 0, 1], [0, 0, 0]], decay=-0.5),
        cl.losses.BendingEnergy(spacing=2.0),
        cl.losses.Diffusion(spacing=[1.0, 1.0, 3.0]),
        cl.losses.FocalFrequency(alpha=2.0),
        cl.losses.LocalCrossCorrelation(window=5, epsilon=1e-3),
        cl.losses.MutualInformation(bins=16, sigma_ratio=1.0, low=-1.0, high=1.0),
        cl.losses.SSIM(filter_size=7, ignore_value=-1.0),
    ]


def losses_of_two_outputs() -> list[cl.wrappers.Wrapper | cl.CompositeLoss]:
    match = cl.losses.PairedContrastive(temperature=0.1, learn_temperature=True)
    print([variable.shape for variable in match.trainable_variables])
    return [
        cl.wrappers.OnOutput(match, ("image", "text")),
        cl.wrappers.OnOutput(cl.losses.BarlowTwins(off_diagonal=0.01), ("one", "other")),
        cl.losses.VICReg(invariance=10.0, variance=10.0, covariance=0.5, target_std=1.0),
        cl.losses.ProxyAnchor(10, 64, margin=0.1, scale=32.0, reduction="sum"),
        "mse" + cl.losses.ProxyAnchor(2, 1, proxies=[[1.0], [-1.0]], dtype="float64"),
    ]


def losses_of_several_parts() -> list[cl.CompositeLoss]:
    eye = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, name="edges")])
    resolutions = cl.losses.MultiResolutionSTFT(fft_sizes=(64, 9), hops=(16, 4), windows=(32, 9))
    return [
        resolutions + cl.losses.STFT(fft_size=64, hop=16, window=32, phase=0.5, pre_emphasis=0.85),
        0.1 * cl.losses.MelSTFT(sample_rate=8000, mels=20, high=3000.0),
        0.5 * resolutions,
        "mse" + cl.losses.Perceptual(eye, ["edges"], weights=[0.5], preprocessing="vgg16"),
        0.1 * cl.losses.Perceptual(eye, ["edges"], style=True, preprocessing=np.abs),
    ]


def presets() -> list[cl.CompositeLoss]:
    print(cl.losses.signed_distance(np.ones((1, 4, 4, 1)), spacing=2.0).shape)
    print(cl.losses.distance_maps(np.ones((1, 4, 4, 1)), spacing=[2.0, 1.0]).shape)
    return [
        cl.losses.combo(alpha=0.5),
        cl.losses.dice_bce(from_logits=True, label_smoothing=0.1),
        cl.losses.dice_ce(),
        cl.losses.dice_focal(multiclass=True),
        cl.losses.generalized_dice_focal(),
        cl.losses.unified_focal(),
    ]


def wrappers() -> list[cl.wrappers.Wrapper]:
    wrapped = cl.wrappers.OnSlice("mse", np.s_[:, :2])
    assert_type(0.5 * wrapped, cl.CompositeLoss)
    return [
        wrapped,
        Doubled("mae"),
        cl.wrappers.Activated("binary_crossentropy", "sigmoid"),
        cl.wrappers.ClassWeighted("categorical_crossentropy", [1.0, 2.0]),
        cl.wrappers.DeepSupervision(cl.losses.Dice(), weights="exp"),
        cl.wrappers.Hardest("mse", fraction=0.1, over="batch"),
        cl.wrappers.Masked("mse", mask_value=-1.0),
        cl.wrappers.Matched(cl.losses.EIoU(), cost="mae", unmatched=0.5, mask_value=-1.0),
        cl.wrappers.MultiScale("mse", scales=(1, 2)),
        cl.wrappers.Normalized("mse", by="positives"),
        cl.wrappers.NormalizedByPositives(cl.losses.BinaryFocal(), over="sample"),
        cl.wrappers.OnOutput("mse", "head"),
        cl.wrappers.OneHot("categorical_crossentropy", num_classes=3),
        cl.wrappers.PerChannel("mse", names=["u", "v"], weights={"u": 2.0}),
        cl.wrappers.PerElement("mse", size=3),
        cl.wrappers.Permuted(cl.losses.SISDR(), axis=-1),
        cl.wrappers.PredictionOnly(under_zero),
        cl.wrappers.Scaled("mse", 10.0),
        cl.wrappers.Scaled.from_data("mse", np.array([[1.0], [2.0]])),
        cl.wrappers.StopGradient("mse", name="watched"),
    ]


def under_zero(y_pred: Any) -> Any:
    return keras.ops.mean(keras.ops.relu(-y_pred), axis=-1)


def residual(model: Any, x: Any, y: Any, y_pred: Any) -> Any:
    found = cl.input_gradients(
        model, x, output=["u"], derivatives=["x", ("time", "x")], columns=["x", "time"]
    )
    by_input = cl.input_gradients(model, x, derivatives=["", "zz"], columns={"place": "yz"})
    return found["u"]["x"] + by_input["zz"] + cl.input_gradients(model, x, order=2)[:, 0]


def rules() -> list[cl.weightings.Weighting]:
    return [
        Equal(),
        InverseMagnitude(max_weight=100.0),
        cl.weightings.AlignedMTL(scale="min"),
        cl.weightings.Average(total="k"),
        cl.weightings.CAGrad(c=0.5, gradients="output"),
        cl.weightings.CoVWeighting(),
        cl.weightings.ConFIG(gradients="parameters", log_conflict=True),
        cl.weightings.DualProj(),
        cl.weightings.DynamicWeightAverage(temperature=2.0),
        cl.weightings.FAMO(),
        cl.weightings.FairGrad(),
        cl.weightings.GeometricMean(),
        cl.weightings.GradNorm(alpha=1.5, warmup=5, update_every=2),
        cl.weightings.GradientNormBalance(),
        cl.weightings.GramianWeighting(lambda gramian: keras.ops.ones_like(gramian[0])),
        cl.weightings.IMTLG(),
        cl.weightings.InverseGradientNorm(),
        cl.weightings.MGDA(normalize=True),
        cl.weightings.MagnitudeBalance(momentum=0.9),
        cl.weightings.NashMTL(),
        cl.weightings.PCGrad(seed=1),
        cl.weightings.RandomWeighting(seed=1),
        cl.weightings.ReLoBRaLo(),
        cl.weightings.Smoothed(cl.weightings.UPGrad(), momentum=0.9),
        cl.weightings.SoftAdapt(),
        cl.weightings.UncertaintyWeighting(kind=["regression", "classification"]),
        cl.weightings.Worst(temperature=0.1),
    ]


def schedules() -> list[float]:
    curves = [
        cl.weightings.LinearRamp(steps=100, start=1.0, end=0.5),
        cl.weightings.Sigmoid(steps=100, midpoint=50),
        cl.weightings.Cyclical(cycle=10, cycles=3),
    ]
    return [float(curve(5)) for curve in curves]


def point_sets() -> cl.PointSets:
    points = cl.PointSets(
        {
            "pde": cl.Box([0.0, 0.0], [1.0, 1.0], method="latin"),
            "data": np.ones((4, 2)),
            "wall": lambda count, rng: rng.random((count, 2)),
        },
        targets={"u": ("data", lambda x: x[:, :1]), "v": ("wall", 0.0), "w": None},
        batch={"pde": 8, "data": 2, "wall": 4},
        seed=0,
        sample_weight={"u": 2.0},
        redraw_every=None,
    )
    assert_type(len(points), int)
    assert_type(points.epoch, int)
    assert_type(points.batch, dict[str, int])
    points.adapt("pde", points.candidates("pde", 16), np.ones(16), k=2.0)
    points.set_state(points.get_state())
    return points


def callbacks(folder: Path) -> list[Any]:
    stop = cl.callbacks.TerminateOnComponentNaN(path=folder / "batch.npz")
    assert_type(stop.components, tuple[str, ...])
    return [
        stop,
        cl.callbacks.AdaptPoints(point_sets(), {"pde": lambda model, x: x[:, 0]}, every=10),
        cl.callbacks.BackupPoints(point_sets(), folder / "points.npz"),
        cl.callbacks.ComponentPlot(folder / "curves.png", every=1),
        cl.callbacks.GradientConflict(every=10),
        cl.callbacks.LossWeightScheduler("under", lambda epoch, weight: weight * 0.5, per="epoch"),
        cl.callbacks.TensorBoard(str(folder / "logs"), histogram_freq=0),
    ]


def models() -> list[Any]:
    loss = operators()  # one whose weights do not move, so that several models may train on it
    inputs = keras.Input((2,))
    outputs = keras.layers.Dense(1)(inputs)
    functional = cl.Model(inputs, outputs)
    functional.compile("adam", loss=loss)
    sequential = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    sequential.compile(keras.optimizers.Adam(), loss=loss, loss_weights=None, metrics=["mae"])
    tracked = cl.track(keras.Model(inputs, outputs))
    tracked.compile("adam", loss=loss, jit_compile=False)
    line = Line()
    line.compile(optimizer="sgd", loss={"output": loss}, weighted_metrics=loss.as_metrics())
    equation = cl.CompositeLoss({"fit": "mse", "equation": cl.wrappers.OnInputs(residual)})
    cl.Model(inputs, outputs).compile("adam", loss=equation)
    print(cl.untrack(sequential).name, cl.__version__.split("."))
    return [functional, sequential, tracked, line]


def train(loss: cl.CompositeLoss, folder: Path) -> None:
    x, y = np.random.rand(8, 2), np.random.rand(8, 1)
    model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", loss=loss)
    history = model.fit(x, y, epochs=2, verbose=0, validation_data=(x, y))
    model.evaluate(x, y, verbose=0, return_dict=True)
    model.train_on_batch(x, y)
    model.test_on_batch(x, y)
    model.predict(x, verbose=0)
    model.save(folder / "model.keras")
    axes = cl.plots.components(history)
    axes = cl.plots.shares(history.history, axes, weights=loss.weights)
    cl.plots.pareto({"one": history, "two": history}, x="mse", y="under")
    diagnosis = cl.diagnose(model, x, y, batch_size=4, at="output")
    cl.plots.conflicts(diagnosis)
    read(diagnosis)
    read(diagnose(model, x, y))


def read(diagnosis: Diagnosis) -> None:
    assert_type(diagnosis.loss, float)
    assert_type(diagnosis.names, tuple[str, ...])
    assert_type(diagnosis.flags, dict[str, tuple[str, ...]])
    assert_type(diagnosis.proposed_weights, dict[str, float])
    assert_type(diagnosis.invisible, list[str])
    assert_type(diagnosis.samples, int)
    assert_type(diagnosis["mse"].value, float)
    assert_type(diagnosis["mse"].gradient_norm, float)
    assert_type(diagnosis.to_html(), str)
    print(diagnosis.cosines.shape, diagnosis.model_name, diagnosis.at, len(diagnosis))
    for fault in diagnosis.faults:
        print(fault.component, fault.flag, fault.message)
    for component in diagnosis:
        print(component.share, component.flags)


def build() -> Any:
    model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    loss = cl.CompositeLoss({"fit": "mse", "under": cl.losses.UnderestimationPenalty()})
    model.compile(keras.optimizers.SGD(0.1), loss=loss)
    return model


def tune(folder: Path) -> None:
    data = np.random.rand(16, 2), np.random.rand(16, 1)
    found = cl.search(
        build,
        data,
        parameters={"under": (0.1, 10.0), "weighting": [None, "FAMO"]},
        objectives={"fit_loss": "min"},
        trials=1,
        seeds=1,
        confirm=0,
        storage=folder / "search.db",
        verbose=0,
        epochs=1,
    )
    assert_type(found, cl.tuning.SearchResult)
    assert_type(found.best, cl.tuning.Best)
    assert_type(found.best.gains["fit_loss"], cl.tuning.Difference)
    assert_type(found.trials, list[cl.tuning.Run])
    assert_type(found.to_html(), str)
    goal = "fit_loss:min"
    compared = cl.compare(build, data, objectives=goal, rules=["FAMO"], seeds=2, verbose=0)
    assert_type(compared, cl.tuning.Comparison)
    front = cl.pareto(build, data, parts=("fit", "under"), points=3, verbose=0, epochs=30)
    assert_type(front, cl.tuning.Front)


def alone(loss: cl.CompositeLoss) -> None:
    with cl.distributed():
        print(loss(np.ones((2, 1)), np.zeros((2, 1))))


def main(folder: Path) -> None:
    own_loop(operators())
    print(
        len(losses()),
        len(losses_of_two_outputs()),
        len(losses_of_several_parts()),
        len(presets()),
        len(wrappers()),
        len(rules()),
        schedules(),
    )
    print(len(callbacks(folder)), len(models()))
    train(composite(), folder)
    tune(folder)
    alone(operators())
