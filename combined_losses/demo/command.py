"""What `combined-losses demo` does once its arguments are known to be right."""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.text import Text

from combined_losses.demo import figures, folder, regression, screen, thin_lines
from combined_losses.demo.comparison import Comparison, Experiment, compare
from combined_losses.demo.tables import Table, load_diabetes

LINES = "lines"  # the sub-folder of experiment (b); (a) writes into the folder itself
CONTENT = {
    "history.csv": "every component of every epoch, in training and validation",
    "components.png": "each component's curve, and its share of the loss",
    "overview.png": "the same, and what both networks do on held-out data",
    "model.keras": "the first network that was trained on the composite",
    "summary.json": "the numbers of the tables",
    "lines/": "history, components, network and examples.png of the thin lines",
    "tensorboard/": "events of both trainings; tensorboard --logdir {out}",
}


def run_demo(args: argparse.Namespace, table: Table | None) -> None:
    """Runs (a) on `table`, or (a) on the diabetes data and (b); fills `args.out`."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal may be unable to show "±"
    console = Console(highlight=False)
    backend = keras.backend.backend()
    console.print(f"combined-losses demo, Keras {keras.__version__} on {backend}, seed {args.seed}")
    if table is not None:
        console.print(screen.choices_table(table))
    patients = table or load_diabetes()
    folds = regression.make_folds(patients, seed=args.seed)
    experiments = {"": regression.experiment(patients, folds, epochs=args.epochs)}
    if table is None:
        experiments[LINES] = thin_lines.experiment(epochs=args.epochs, seed=args.seed)
    with folder.staged(args.out) as staging:
        results = _train(console, experiments, staging, args.seed)
        errors = regression.held_out_errors(results[""], patients, folds)
        images = thin_lines.examples(results[LINES]) if LINES in results else {}
        figures.overview(staging / "overview.png", results[""], errors, patients.unit, images)
        for name, result in results.items():
            figures.components(staging / name / "components.png", result)
        if images:
            figures.examples(staging / LINES / "examples.png", images)
        summary = {"choices": patients.choices, **_summary(args.seed, backend, results)}
        folder.write_summary(staging, summary)
    _report(console, args.out, results)


def _train(
    console: Console, experiments: dict[str, Experiment], staging: Path, seed: int
) -> dict[str, Comparison]:
    """The comparisons, by the name of the sub-folder that each writes into."""
    results = {}
    with screen.progress_bar(console) as progress:
        tasks = {
            name: progress.add_task(
                f"training on {experiment.subject}",
                total=experiment.epochs * len(experiment.splits) * len(experiment.arms),
                start=False,
            )
            for name, experiment in experiments.items()
        }
        for name, experiment in experiments.items():
            progress.start_task(tasks[name])
            results[name] = compare(
                experiment,
                staging / name,
                seed=seed,
                step=functools.partial(progress.advance, tasks[name]),
            )
    return results


def _summary(seed: int, backend: str, results: dict[str, Comparison]) -> dict[str, Any]:
    return {
        "keras": keras.__version__,
        "backend": backend,
        "seed": seed,
        "results": [
            {
                "title": result.experiment.title,
                "epochs": result.experiment.epochs,
                "scores": result.scores,
                "model.keras evaluates to": result.evaluated,
            }
            for result in results.values()
        ],
    }


def _report(console: Console, out: Path, results: dict[str, Comparison]) -> None:
    for name, result in results.items():
        console.print()
        console.print(screen.comparison_table(result))
        numbers = ", ".join(f"{key} {value:.5g}" for key, value in result.evaluated.items())
        console.print(f"{Path(name, 'model.keras')}, loaded again, evaluates the same: {numbers}")
    console.print(Text(f"\nWritten to {out}:", "bold"), soft_wrap=True)
    events = all(result.has_tensorboard for result in results.values())
    for name, content in CONTENT.items():
        if (out / name).exists():
            console.print(Text(f"  {name:<16}{content.format(out=out)}"), soft_wrap=True)
    file = str(out / "model.keras")
    console.print(
        Text(
            "\nA model loads only after `import combined_losses`, which registers the losses:"
            f"\n  import keras, combined_losses\n  keras.models.load_model({file!r})"
        ),
        soft_wrap=True,
    )
    if not events:
        console.print(
            "No TensorBoard events: Keras's callback needs tensorflow, which is not installed; "
            "run: pip install tensorflow"
        )
