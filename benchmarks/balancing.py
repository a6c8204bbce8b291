"""Does balancing help? Equal weights, a hand-tuned grid and every rule on two problems, five seeds.

"regression": four quantities of the scikit-learn diabetes data in their own units (blood pressure,
cholesterol, glucose, disease progression) from the six other columns; one mean squared error each.
The scores are R2 on held-out patients. "helmholtz": the physics-informed fit of
u = sin(pi x) sin(4 pi y), u_xx + u_yy + u = q on [-1, 1]^2, as in arXiv:2110.09813: an equation and
a boundary term; the score is the relative L2 error of u.

The grid is tuned on the seeds that are shown, which favours it. Rules have their defaults, but for
what the table says. Mean (standard deviation) of five seeds on two cores, Keras 3.15.1, JAX 0.10.2:

    regression, R2
                                           pressure    cholesterol        glucose    progression
    equal weights                     0.229 (0.081)  0.982 (0.003)  0.212 (0.097)  0.420 (0.095)
    grid: 1 / variance                0.196 (0.088)  0.990 (0.001)  0.184 (0.108)  0.425 (0.073)
    grid: 1 / deviation               0.209 (0.094)  0.990 (0.002)  0.206 (0.111)  0.422 (0.090)
    MagnitudeBalance                  0.195 (0.085)  0.998 (0.001)  0.173 (0.112)  0.423 (0.074)
    MagnitudeBalance, max_weight=1    0.195 (0.085)  0.998 (0.001)  0.173 (0.112)  0.423 (0.074)
    GeometricMean                     0.233 (0.079)  0.998 (0.000)  0.211 (0.100)  0.423 (0.047)
    DynamicWeightAverage              0.231 (0.080)  0.981 (0.003)  0.211 (0.096)  0.420 (0.094)
    SoftAdapt, normalized             0.232 (0.081)  0.982 (0.003)  0.210 (0.098)  0.419 (0.095)
    ReLoBRaLo                         0.230 (0.080)  0.982 (0.003)  0.211 (0.098)  0.421 (0.095)
    CoVWeighting                      0.230 (0.078)  0.994 (0.001)  0.223 (0.103)  0.429 (0.084)
    RandomWeighting                   0.231 (0.080)  0.983 (0.003)  0.223 (0.103)  0.423 (0.089)
    Worst                            -0.026 (0.084) -0.043 (0.046) -0.024 (0.256)  0.428 (0.090)
    FAMO                              0.239 (0.078)  0.998 (0.001)  0.219 (0.099)  0.409 (0.036)
    UncertaintyWeighting              0.231 (0.071)  0.986 (0.003)  0.209 (0.113)  0.427 (0.081)
    UncertaintyWeighting, own steps   0.228 (0.072)  0.839 (0.138)  0.240 (0.103)  0.049 (0.010)
    InverseGradientNorm               0.211 (0.082)  0.996 (0.001)  0.197 (0.101)  0.426 (0.082)
    GradientNormBalance               0.225 (0.075)  0.995 (0.001)  0.200 (0.109)  0.425 (0.087)
    GradNorm                          0.211 (0.106)  0.946 (0.006)  0.216 (0.099)  0.425 (0.082)
    MGDA                              0.214 (0.080)  0.997 (0.001)  0.193 (0.127)  0.393 (0.053)
    MGDA, normalize                   0.213 (0.084)  0.996 (0.001)  0.199 (0.100)  0.425 (0.084)
    UPGrad                            0.228 (0.082)  0.984 (0.004)  0.204 (0.102)  0.420 (0.094)
    DualProj                          0.230 (0.080)  0.981 (0.005)  0.211 (0.098)  0.419 (0.095)
    PCGrad                            0.228 (0.083)  0.984 (0.003)  0.204 (0.103)  0.420 (0.094)
    CAGrad                            0.225 (0.084)  0.994 (0.002)  0.216 (0.101)  0.414 (0.097)
    ConFIG                            0.213 (0.084)  0.996 (0.001)  0.200 (0.100)  0.425 (0.084)
    IMTLG                             0.216 (0.086)  0.996 (0.001)  0.199 (0.106)  0.426 (0.085)
    NashMTL                           0.206 (0.085)  0.996 (0.001)  0.197 (0.109)  0.421 (0.086)
    FairGrad                          0.204 (0.087)  0.996 (0.001)  0.198 (0.108)  0.420 (0.087)
    AlignedMTL                        0.215 (0.085)  0.995 (0.001)  0.203 (0.099)  0.428 (0.082)
    InverseGradientNorm, output       0.223 (0.092)  0.996 (0.001)  0.207 (0.108)  0.423 (0.085)
    GradientNormBalance, output       0.218 (0.091)  0.996 (0.001)  0.202 (0.108)  0.424 (0.087)
    GradNorm, output                  0.209 (0.101)  0.946 (0.005)  0.214 (0.100)  0.424 (0.089)

    helmholtz, relative L2 error of u and RMS at the boundary
                                                  u       boundary  seconds
    equal weights                      1.530 (0.470)   1.148 (0.301)    2.420
    grid: boundary x 10                0.318 (0.048)   0.336 (0.044)    2.460
    grid: boundary x 100               0.159 (0.099)   0.151 (0.101)    2.317
    grid: boundary x 1000              0.407 (0.402)   0.074 (0.010)    2.469
    grid: boundary x 10000             0.781 (0.853)   0.038 (0.006)    2.469
    MagnitudeBalance                   1.000 (0.000)   0.000 (0.000)    2.548
    MagnitudeBalance, max_weight=1     0.186 (0.036)   0.192 (0.037)    2.537
    GeometricMean                      1.000 (0.000)   0.001 (0.001)    2.472
    DynamicWeightAverage               1.074 (0.327)   0.862 (0.236)    2.502
    SoftAdapt, normalized              3.019 (3.702)   2.002 (2.216)    2.533
    ReLoBRaLo                          0.773 (0.111)   0.654 (0.084)    2.718
    CoVWeighting                       2.885 (1.932)   1.919 (1.064)    2.539
    RandomWeighting                    2.938 (1.374)   2.077 (0.976)    2.620
    Worst                              8.015 (2.850)   4.750 (1.444)    2.476
    FAMO                               1.000 (0.000)   0.001 (0.001)    2.673
    UncertaintyWeighting             13.080 (13.704)   7.766 (7.472)    2.502
    UncertaintyWeighting, own steps    1.000 (0.000)   0.000 (0.001)    2.375
    InverseGradientNorm               0.962 (0.329)   0.057 (0.023)
    GradientNormBalance               0.810 (0.773)   0.042 (0.008)
    GradNorm                          0.890 (0.523)   0.060 (0.021)
    MGDA                              0.999 (0.007)   0.004 (0.001)
    MGDA, normalize                   0.892 (0.462)   0.050 (0.014)
    UPGrad                            0.361 (0.517)   0.162 (0.104)
    DualProj                          0.185 (0.072)   0.117 (0.019)
    PCGrad                            0.210 (0.135)   0.142 (0.046)
    CAGrad                            0.582 (0.777)   0.049 (0.010)
    ConFIG                            0.676 (0.436)   0.050 (0.015)
    IMTLG                             0.981 (0.266)   0.035 (0.031)
    NashMTL                           0.520 (0.588)   0.046 (0.011)
    FairGrad                          0.724 (0.772)   0.052 (0.017)
    AlignedMTL                        1.250 (0.363)   0.406 (0.428)

On the regression equal weights are as good as any rule but for cholesterol, which follows from the
other columns: what is fitted nearly exactly profits from rules that do not let it vanish. `Worst`
and slow own steps of the uncertainty do harm. On the equation equal weights fail, and so do most
rules; the rules of 1/value without a cap find u = 0, which has no error at the boundary. A factor
of 100 tuned by hand is best, MagnitudeBalance with a cap comes near it without a search, and its
cap is a choice too.

The rules that read the gradients, from `InverseGradientNorm` on, take them at the parameters, or as
"output" says. On the regression they are like the others: cholesterol gains, with GradNorm it
loses. On the equation none beats the factor tuned by hand. DualProj and PCGrad come near it, UPGrad
does in four of five seeds; those that give all gradients one length or one angle fit the boundary
well and u not yet, and raw MGDA finds u = 0. 4,000 steps are few for them: after 10,000 NashMTL has
0.07 to 0.09 in three seeds, UPGrad 0.07 to 0.14, MGDA(normalize) 0.06 to 0.45. With two components
they took 4.1 to 7.6 s on a busy machine, where equal weights took 4.7 s.
"""

import argparse
import os
import statistics
import time

os.environ.setdefault("KERAS_BACKEND", "jax")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from keras import layers, ops

import combined_losses as cl

RULES = {
    "MagnitudeBalance": lambda: cl.weightings.MagnitudeBalance(),
    "MagnitudeBalance, max_weight=1": lambda: cl.weightings.MagnitudeBalance(max_weight=1.0),
    "GeometricMean": lambda: cl.weightings.GeometricMean(),
    "DynamicWeightAverage": lambda: cl.weightings.DynamicWeightAverage(period=100),
    "SoftAdapt, normalized": lambda: cl.weightings.SoftAdapt(normalized=True),
    "ReLoBRaLo": lambda: cl.weightings.ReLoBRaLo(seed=0),
    "CoVWeighting": lambda: cl.weightings.CoVWeighting(),
    "RandomWeighting": lambda: cl.weightings.RandomWeighting(seed=0),
    "Worst": lambda: cl.weightings.Worst(),
    "FAMO": lambda: cl.weightings.FAMO(),
    "UncertaintyWeighting": lambda: cl.weightings.UncertaintyWeighting(),
    "UncertaintyWeighting, own steps": lambda: cl.weightings.UncertaintyWeighting(
        learning_rate=0.01
    ),
}


def at_parameters(name, **options):
    """A rule of the gradients; at the output there is none for a loss of the inputs."""
    return lambda: getattr(cl.weightings, name)(gradients="parameters", **options)


RULES |= {
    "InverseGradientNorm": at_parameters("InverseGradientNorm"),
    "GradientNormBalance": at_parameters("GradientNormBalance"),
    "GradNorm": at_parameters("GradNorm"),
    "MGDA": at_parameters("MGDA"),
    "MGDA, normalize": at_parameters("MGDA", normalize=True),
    "UPGrad": at_parameters("UPGrad"),
    "DualProj": at_parameters("DualProj"),
    "PCGrad": at_parameters("PCGrad", seed=0),
    "CAGrad": at_parameters("CAGrad"),
    "ConFIG": at_parameters("ConFIG"),
    "IMTLG": at_parameters("IMTLG"),
    "NashMTL": at_parameters("NashMTL"),
    "FairGrad": at_parameters("FairGrad"),
    "AlignedMTL": at_parameters("AlignedMTL"),
}
# At the output the components of the regression have no entry in common, but lengths.
AT_OUTPUT = {
    f"{name}, output": getattr(cl.weightings, name)
    for name in ("InverseGradientNorm", "GradientNormBalance", "GradNorm")
}


# Multi-target regression.

TARGETS = ["pressure", "cholesterol", "glucose", "progression"]


def diabetes(seed):
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import StandardScaler

    x, progression = load_diabetes(return_X_y=True, scaled=False)
    y = np.column_stack([x[:, [3, 4, 9]], progression])
    x = np.delete(x, [3, 4, 9], axis=1)
    x, x_test, y, y_test = train_test_split(x, y, test_size=0.3, random_state=seed)
    scaler = StandardScaler().fit(x)
    return (
        scaler.transform(x),
        y - y.mean(axis=0),
        scaler.transform(x_test),
        y_test - y.mean(axis=0),
    )


def fit_regression(seed, weights=None, weighting=None, epochs=150):
    keras.utils.set_random_seed(seed)
    x, y, x_test, y_test = diabetes(seed)
    parts = {
        name: cl.wrappers.OnSlice("mse", np.s_[:, i : i + 1]) for i, name in enumerate(TARGETS)
    }
    model = cl.Sequential(
        [keras.Input((x.shape[1],)), layers.Dense(32, activation="relu"), layers.Dense(4)]
    )
    model.compile(keras.optimizers.Adam(1e-2), loss=cl.CompositeLoss(parts, weights, weighting))
    start = time.perf_counter()
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    error = np.mean((model.predict(x_test, verbose=0) - y_test) ** 2, axis=0)
    return {**dict(zip(TARGETS, 1 - error / y_test.var(axis=0), strict=True)), "seconds": seconds}


REGRESSION_GRID = {
    "grid: 1 / variance": lambda: dict(
        zip(TARGETS, [float(1 / v) for v in diabetes(0)[1].var(axis=0)], strict=True)
    ),
    "grid: 1 / deviation": lambda: dict(
        zip(TARGETS, [float(1 / v) for v in diabetes(0)[1].std(axis=0)], strict=True)
    ),
}


# The Helmholtz equation.


def exact(points):
    return np.sin(np.pi * points[:, :1]) * np.sin(4 * np.pi * points[:, 1:])


def equation(model, x, y, y_pred):
    curvature = ops.sum(cl.input_gradients(model, x, order=2), axis=1, keepdims=True)
    x, y = x[:, :1], x[:, 1:]
    u = ops.sin(np.pi * x) * ops.sin(4 * np.pi * y)
    return ops.square(curvature + y_pred + (17 * np.pi**2 - 1) * u)


def border(count):
    side = np.linspace(-1, 1, count, dtype="float32")
    one = np.ones_like(side)
    sides = [(side, one), (side, -one), (one, side), (-one, side)]
    return np.concatenate([np.stack(pair, axis=1) for pair in sides])


BORDER = border(32)


def boundary(model, x, y, y_pred):
    return ops.mean(ops.square(model(BORDER)))


def fit_helmholtz(seed, weights=None, weighting=None, steps=4000, batch=256):
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    x = random.uniform(-1, 1, (steps * batch, 2)).astype("float32")
    hidden = [layers.Dense(32, activation="tanh") for _ in range(3)]
    model = cl.Sequential([keras.Input((2,)), *hidden, layers.Dense(1)])
    parts = {
        name: cl.wrappers.OnInputs(f)
        for name, f in (("equation", equation), ("boundary", boundary))
    }
    model.compile(
        keras.optimizers.Adam(3e-3),
        loss=cl.CompositeLoss(parts, weights, weighting),
        steps_per_execution=50,
    )
    start = time.perf_counter()
    model.fit(x, batch_size=batch, shuffle=False, verbose=0)
    seconds = time.perf_counter() - start
    axis = np.linspace(-1, 1, 65, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    u = exact(grid)
    p = model.predict(grid, verbose=0)
    edge = ops.convert_to_numpy(model(BORDER))
    return {
        "u": float(np.linalg.norm(p - u) / np.linalg.norm(u)),
        "boundary": float(np.sqrt(np.mean(edge**2))),
        "seconds": seconds,
    }


HELMHOLTZ_GRID = {
    f"grid: boundary x {factor}": lambda factor=factor: {"boundary": float(factor)}
    for factor in (10, 100, 1000, 10000)
}

PROBLEMS = {
    "regression": (fit_regression, REGRESSION_GRID, "R2 on held-out patients"),
    "helmholtz": (fit_helmholtz, HELMHOLTZ_GRID, "relative L2 error of u, RMS at the boundary"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", choices=list(PROBLEMS))
    parser.add_argument("--ways", nargs="*", help="of the rows, these; default all")
    args = parser.parse_args()
    for problem, (fit, grid, score) in PROBLEMS.items():
        if args.only not in (None, problem):
            continue
        ways = {"equal weights": {}}
        ways.update({name: {"weights": make} for name, make in grid.items()})
        rules = RULES | AT_OUTPUT if problem == "regression" else RULES
        ways.update({name: {"weighting": make} for name, make in rules.items()})
        ways = {name: ways[name] for name in args.ways or ways}
        print(f"\n{problem}: {score}; mean and standard deviation of {args.seeds} seeds")
        for row, (name, options) in enumerate(ways.items()):
            runs = [
                fit(seed, **{key: make() for key, make in options.items()})
                for seed in range(args.seeds)
            ]
            if row == 0:
                print(f"{'':34}" + "".join(f"{key:>18}" for key in runs[0]))
            cells = []
            for key in runs[0]:
                values = [run[key] for run in runs]
                spread = statistics.stdev(values) if len(values) > 1 else 0.0
                cells.append(f"{statistics.mean(values):9.3f} ({spread:5.3f})")
            print(f"{name:34}" + "".join(f"{cell:>18}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
