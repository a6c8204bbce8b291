"""What does a rule for the weights cost? Every rule against fixed weights, 8 parts of 256 x 4096.

The steps of all rules are interleaved in one process; medians, and the median of the ratios.
"fixed" has constant weights, "set_weight" has been changed once, so that its weights are variables.
Run it once for each `KERAS_BACKEND`. On two cores, Keras 3.15.1, TensorFlow 2.21, JAX 0.10.2:

                                tensorflow               jax
    fixed                     6.69ms  1.00      2.47ms  1.00
    set_weight                7.91ms  1.15     13.99ms  5.87
    Average                   7.28ms  1.07     12.67ms  5.50
    Worst                     7.26ms  1.09     12.65ms  5.41
    Worst(0.1)                7.35ms  1.07     12.56ms  5.22
    RandomWeighting           7.12ms  1.06     12.99ms  5.37
    MagnitudeBalance          7.22ms  1.05     12.90ms  5.65
    GeometricMean             7.42ms  1.09     13.16ms  5.69
    DynamicWeightAverage      7.18ms  1.07     13.10ms  5.67
    SoftAdapt                 7.16ms  1.07     12.81ms  5.41
    ReLoBRaLo                 7.45ms  1.08     12.81ms  5.38
    CoVWeighting              7.22ms  1.07     12.81ms  5.39
    FAMO                      7.21ms  1.07     12.83ms  5.41
    UncertaintyWeighting      7.12ms  1.06     12.83ms  5.39

The rules themselves cost nothing that could be seen beside weights that are variables. What costs
is that weights are no constants: with constants XLA makes one pass of eight parts that are as
similar as these.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from overhead import interleaved, make_parts

import combined_losses as cl

WAYS = {
    "fixed": lambda: None,
    "set_weight": lambda: None,
    "Average": cl.weightings.Average,
    "Worst": cl.weightings.Worst,
    "Worst(0.1)": lambda: cl.weightings.Worst(temperature=0.1),
    "RandomWeighting": cl.weightings.RandomWeighting,
    "MagnitudeBalance": cl.weightings.MagnitudeBalance,
    "GeometricMean": cl.weightings.GeometricMean,
    "DynamicWeightAverage": cl.weightings.DynamicWeightAverage,
    "SoftAdapt": cl.weightings.SoftAdapt,
    "ReLoBRaLo": cl.weightings.ReLoBRaLo,
    "CoVWeighting": cl.weightings.CoVWeighting,
    "FAMO": cl.weightings.FAMO,
    "UncertaintyWeighting": cl.weightings.UncertaintyWeighting,
}


def compiled(way, n=8, width=4096, hidden=16):
    model = cl.Sequential([keras.Input((hidden,)), keras.layers.Dense(width)])
    loss = cl.CompositeLoss(make_parts(n), weights=[1.0 / n] * n, weighting=WAYS[way]())
    if way == "set_weight":
        loss.set_weight("part_0", 0.5)
    model.compile("sgd", loss=loss)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    batch, steps = 256, 25
    x = rng.normal(size=(batch * steps, 16)).astype("float32")
    y = rng.normal(size=(batch * steps, 4096)).astype("float32")
    models = {way: compiled(way) for way in WAYS}
    times = interleaved(models, x, y, batch, rounds)
    print(f"{keras.backend.backend()}, keras {keras.__version__}, 8 parts of 256x4096, medians")
    for way, values in times.items():
        pairs = zip(values, times["fixed"], strict=True)
        ratio = statistics.median(value / base for value, base in pairs)
        print(f"    {way:22}{1e3 * statistics.median(values):7.2f}ms  {ratio:.2f}")


if __name__ == "__main__":
    main()
