"""`compare`: rules side by side on the user's own data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from combined_losses._core.checks import check_weight
from combined_losses._core.names import quoted
from combined_losses.tuning.arguments import check_count, check_installed
from combined_losses.tuning.bench import Bench, Build, new_garbage_alone
from combined_losses.tuning.comparison import Comparison
from combined_losses.tuning.grid import joined_runs, train_all
from combined_losses.tuning.objectives import Objectives, as_objectives
from combined_losses.tuning.progress import Progress
from combined_losses.tuning.references import COMPILED, EQUAL
from combined_losses.tuning.settings import (
    Setting,
    composite_of,
    equal_weights,
    every_rule,
    label_of,
    rule_of,
)
from combined_losses.tuning.study import Study
from combined_losses.weightings.base import Weighting

RuleLike: TypeAlias = str | Weighting | type[Weighting] | Mapping[str, float] | None


@new_garbage_alone()
def compare(
    build: Build,
    data: Any,
    *,
    objectives: Objectives,
    rules: Sequence[RuleLike] | None = None,
    validation: Any = None,
    seeds: int = 5,
    storage: str | Path | None = None,
    name: str = "compare",
    seed: int = 0,
    verbose: int = 1,
    **fit: Any,
) -> Comparison:
    """Trains with one rule after the other, and says which beats equal weights, if any.

    Each rule is trained with the same seeds, so that its differences to equal weights are paired.
    Rules have fixed weights of 1, so that only the rule differs from equal weights; the weights as
    compiled are in the table too. Needs `pip install "combined_losses[search]"`.

    Args:
        build, data, validation, objectives: as in `cl.search`.
        rules: names such as `"UPGrad"`, rules, classes of rules, or dicts of fixed weights, such as
            `{"under": 0.3}`. None (default): every rule of `cl.weightings` at its defaults, those
            of gradients at the parameters if a component acts on the model by more than its output.
        seeds: how often each is trained, at least 2. Default 5.
        storage: None (default): in memory; or as in `cl.search`: the comparison can then be killed
            and goes on, and several processes divide it.
        name, seed, verbose, **fit: as in `cl.search`.

    Returns:
        A `Comparison`: `print` shows means, spreads, the time of a step, the difference to equal
        weights with its 95 % interval, and a sentence. Ctrl-C ends it early: it then holds what
        there is.

    Raises:
        ValueError: as `cl.search`; for an unknown rule.

    Example:

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> rng = np.random.default_rng(0)
    >>> x, y = rng.normal(size=(64, 3)), rng.normal(size=(64, 1))
    >>> def build():
    ...     model = cl.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    ...     model.compile("adam", loss=cl.CompositeLoss(["mse", "mae"]))
    ...     return model
    >>> found = cl.compare(
    ...     build, (x, y), rules=["FAMO"], objectives="mse_loss", seeds=2, verbose=0, epochs=1
    ... )
    >>> [run.name for run in found.runs]
    ['equal weights', 'as compiled', 'FAMO']
    """
    check_installed()
    check_count("seeds", seeds, 2)
    goals = as_objectives(objectives)
    bench = Bench(build, data, validation, goals, seed, fit)
    with bench.first_model() as model:
        composite = composite_of(model)
        equal, known = equal_weights(composite), composite._node.settable_names
        tried = every_rule(composite) if rules is None else rules
        settings = {EQUAL: equal, COMPILED: Setting(), **_settings(tried, equal, known)}
        described = {"rules": list(settings), "seeds": seeds, **bench.described(model)}
        del model, composite
    study = Study(storage, name, described, goals, seed)
    count, names = len(settings) * seeds, list(settings)

    def named(number: int) -> tuple[str, int]:
        """All rules with the first seed, then with the second one."""
        return names[number % len(names)], number // len(names)

    def training(number: int) -> tuple[str, Setting, int]:
        rule, with_seed = named(number)
        return rule, settings[rule], with_seed

    with Progress(count - len(study.trials), verbose) as progress:
        try:
            train_all(study, bench, count, training, progress)
        except KeyboardInterrupt:
            progress.say("stopped; what there is is compared")
    return Comparison(goals, joined_runs(study, named))


def _settings(
    rules: Sequence[RuleLike], equal: Setting, components: Sequence[str]
) -> dict[str, Setting]:
    """The setting of each rule, by the name that the table shows."""
    if not isinstance(rules, (list, tuple)):
        raise ValueError(
            f"`rules` must be a list of rules, such as ['UPGrad', 'FAMO']. Received: {rules!r}"
        )
    found: dict[str, Setting] = {}
    for given in rules:
        if isinstance(given, Mapping):
            _check_weights(given, components)
            found[f"weights {dict(given)}"] = Setting({**equal.weights, **given}, rule=None)
        else:
            rule = rule_of(given)
            if rule is not None:  # equal weights are there already
                found[label_of(rule)] = Setting(equal.weights, rule=rule)
    return found


def _check_weights(weights: Mapping[str, float], components: Sequence[str]) -> None:
    unknown = [name for name in weights if name not in components]
    if unknown:
        raise ValueError(
            f"The weights in `rules` name components, {quoted(components)}. "
            f"Received: {unknown[0]!r}"
        )
    for name, value in weights.items():
        check_weight(name, value)  # raises
