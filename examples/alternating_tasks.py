"""Which rule may I use when each batch has the labels of one task only?

Two tasks share a network: two curves over the same inputs, each with a data set of its own. Batches
of the one and of the other come in turn, and the labels of the other task are missing (NaN). The
table has, for each rule that reads no gradients, the relative error of this training, and that of a
training whose batches have the labels of both tasks, as many of each. 0 is perfect; 1 is what a
constant achieves, the mean of the labels. It is the error of the worse task.

    python examples/alternating_tasks.py
    python examples/alternating_tasks.py --quick    # three rules, one optimizer
"""

import sys

import keras
import numpy as np
from keras import layers

import combined_losses as cl

TASKS = ("wave", "step")
BATCH = 32
OPTIMIZERS = {"SGD": (keras.optimizers.SGD, 0.1), "Adam": (keras.optimizers.Adam, 0.03)}


def find_rules():
    """A function that makes the rule, for each rule of the package that reads no gradients."""
    rules = {"no rule": lambda: None}
    for name in cl.weightings.__all__:
        found = getattr(cl.weightings, name)
        is_rule = issubclass(found, cl.weightings.Weighting)
        reads_gradients = issubclass(found, cl.weightings.GramianWeighting)
        if is_rule and not reads_gradients and found is not cl.weightings.Weighting:
            rules[name] = found
    # It needs a rule to smooth.
    rules["Smoothed"] = lambda: cl.weightings.Smoothed(cl.weightings.MagnitudeBalance())
    return rules


def draw(count, seed):
    """Inputs, and the labels of both tasks, without noise."""
    x = np.random.default_rng(seed).uniform(-2, 2, (count, 2)).astype("float32")
    first, second = x[:, :1], x[:, 1:]
    return x, {"wave": np.sin(first) + second / 2, "step": np.tanh(first - second)}


def take_turns(count, seed):
    """`count` labels of each task, of inputs of its own: a batch of the one, then of the other."""
    x, y = draw(2 * count, seed)
    turn = np.arange(2 * count) // BATCH % 2
    for number, task in enumerate(TASKS):
        y[task] = np.where(turn[:, None] == number, y[task], np.nan)
    return x, y


def train(data, rule, optimizer, epochs, seed):
    """The relative error of the worse task, on new inputs."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((2,))
    trunk = layers.Dense(32, activation="tanh")(inputs)
    model = cl.Model(inputs, {task: layers.Dense(1, name=task)(trunk) for task in TASKS})
    loss = cl.CompositeLoss(
        {task: cl.wrappers.OnOutput(cl.wrappers.Masked("mse"), task) for task in TASKS},
        weighting=rule,
    )
    make, rate = OPTIMIZERS[optimizer]
    steps = epochs * len(data[0]) // BATCH
    # To 0, so that what is compared is no noise of the last steps.
    model.compile(make(keras.optimizers.schedules.CosineDecay(rate, steps)), loss=loss)
    # The rows stay in the order of the turns.
    model.fit(*data, batch_size=BATCH, epochs=epochs, shuffle=False, verbose=0)

    x, y = draw(1000, seed=1000)
    found = model.predict(x, batch_size=1000, verbose=0)
    return max(float(np.mean((found[task] - y[task]) ** 2) / y[task].var()) for task in TASKS)


def main(seed=0, rules=None, optimizers=tuple(OPTIMIZERS), epochs=15, count=256):
    """A dict from (rule, optimizer) to two errors: of tasks in turn, and of both in each batch."""
    makers = find_rules()
    turns, both = take_turns(count, seed), draw(count, seed)
    return {
        (name, optimizer): tuple(
            train(data, makers[name](), optimizer, epochs, seed) for data in (turns, both)
        )
        for name in rules or makers
        for optimizer in optimizers
    }


def show(errors):
    """Prints the table, as Markdown."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    optimizers = list(dict.fromkeys(optimizer for _, optimizer in errors))
    table = Table("rule", box=box.MARKDOWN)
    for optimizer in optimizers:
        for column in (f"{optimizer}, in turn", "both", "ratio"):
            table.add_column(column, justify="right")
    for name in dict.fromkeys(name for name, _ in errors):
        cells = []
        for optimizer in optimizers:
            turns, both = errors[name, optimizer]
            cells += [f"{turns:.4f}", f"{both:.4f}", f"{turns / both:.2f}"]
        table.add_row(name, *cells)
    Console(width=120).print(table)


def plot(errors):
    """Draws both errors of each rule into alternating_tasks.png."""
    import matplotlib.pyplot as plt

    labels = [f"{name}, {optimizer}" for name, optimizer in errors]
    figure, axes = plt.subplots(figsize=(6, 3 + 0.4 * len(errors)), layout="constrained")
    for index, (kind, marker) in enumerate([("tasks in turn", "o"), ("both in each batch", "s")]):
        values = [pair[index] for pair in errors.values()]
        axes.scatter(values, labels, s=80, marker=marker, label=kind)
    axes.set(xscale="log", xlabel="relative error of the worse task", xlim=(1e-3, 0.2))
    axes.margins(y=0.2)
    axes.invert_yaxis()
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=2)
    figure.savefig("alternating_tasks.png")


if __name__ == "__main__":
    quick = "--quick" in sys.argv[1:]
    found = main(rules=list(find_rules())[:3], optimizers=("Adam",)) if quick else main()
    show(found)
    plot(found)
