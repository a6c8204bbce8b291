"""combined_losses: name your losses, and train, watch and save them as one `keras.losses.Loss`.

Glossary: a *composite* is a weighted sum of losses; a *component* is one of these losses, under a
name; a *weight* is the number that a component is multiplied by; a *reduction* turns the values
that a component has for a batch into one number; a *domain loss* is one of `cl.losses`; a *tracked
model* is a Keras model that reports every component (`cl.Model`, `cl.Sequential`, `cl.track`).
"""

import inspect
import sys
import types
import typing

from combined_losses._core.shell import checks_first as _checks_first
from combined_losses._core.shell import load_package as _load_package
from combined_losses._core.shell import quiet_if_command as _quiet_if_command
from combined_losses._version import __version__

# The command checks its arguments before Keras is imported, which takes seconds. Its `load_package`
# then runs this file again.
if typing.TYPE_CHECKING or not _checks_first():
    with _quiet_if_command():
        import keras  # noqa: F401 - imported here, to hide what TensorFlow prints from the command

    from combined_losses import (
        callbacks,
        diagnosis,
        losses,
        plots,
        tuning,
        weightings,
        wrappers,
    )
    from combined_losses._core.ranks import distributed
    from combined_losses.composite import CompositeLoss, as_loss
    from combined_losses.diagnosis import diagnose
    from combined_losses.points import Box, PointSets
    from combined_losses.training.derivatives import input_gradients
    from combined_losses.training.mixin import ComponentMetricsMixin
    from combined_losses.training.models import Model, Sequential, track, untrack
    from combined_losses.tuning.comparing import compare
    from combined_losses.tuning.searching import search
    from combined_losses.tuning.trade_offs import pareto

__all__ = [
    "Box",
    "ComponentMetricsMixin",
    "CompositeLoss",
    "Model",
    "PointSets",
    "Sequential",
    "__version__",
    "as_loss",
    "callbacks",
    "compare",
    "diagnose",
    "distributed",
    "input_gradients",
    "losses",
    "pareto",
    "plots",
    "search",
    "track",
    "tuning",
    "untrack",
    "weightings",
    "wrappers",
]


def __dir__() -> list[str]:
    return __all__


def _place_in(module: types.ModuleType) -> None:
    """Sets the `__module__` of each public class and function to the public module that holds it.

    Pickles and configs store `__module__`, so they still load after code has moved to another file
    of the package. Methods are set too: doctest skips a method whose `__module__` differs from that
    of its class.
    """
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.ismodule(thing):
            _place_in(thing)
        elif inspect.isclass(thing) or inspect.isfunction(thing):
            methods = filter(inspect.isfunction, vars(thing).values())
            for each in (thing, *methods):
                each.__module__ = module.__name__


if typing.TYPE_CHECKING or not _checks_first():
    _place_in(diagnosis)
    _place_in(sys.modules[__name__])  # last, because it has `diagnose` as well

if not typing.TYPE_CHECKING:  # else type checkers would find no misspelt name

    def __getattr__(name: str) -> object:
        """Loads a name in a process that the command has started while it checks its arguments."""
        if name in __dir__() and _checks_first():
            _load_package()
            return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
