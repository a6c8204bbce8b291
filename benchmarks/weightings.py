"""What does a rule for the weights cost? Every rule against fixed weights, 8 parts of 256 x 4096.

The steps of all rules are interleaved in one process; medians, and the median of the ratios.
"fixed" has constant weights, "set_weight" has been changed once, so that its weights are variables.
Run it once for each `KERAS_BACKEND`. Results: docs/benchmarks.md; `--json FILE` writes them.
"""

import argparse
import os
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import recording
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
    recording.add_argument(parser)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    batch, steps = 256, 25
    x = rng.normal(size=(batch * steps, 16)).astype("float32")
    y = rng.normal(size=(batch * steps, 4096)).astype("float32")
    models = {way: compiled(way) for way in WAYS}
    times = interleaved(models, x, y, batch, args.rounds)
    backend, rows = keras.backend.backend(), []
    print(f"{backend}, keras {keras.__version__}, 8 parts of 256x4096, medians")
    for way, values in times.items():
        pairs = zip(values, times["fixed"], strict=True)
        ratio = statistics.median(value / base for value, base in pairs)
        step = 1e3 * statistics.median(values)
        rows.append([way, step, ratio])
        print(f"    {way:22}{step:7.2f}ms  {ratio:.2f}")
    columns = {"step, ms": "{:.2f}", "ratio": "{:.2f}"}
    recording.keep(args.json, backend, title=backend, label="weights", columns=columns, rows=rows)


if __name__ == "__main__":
    main()
