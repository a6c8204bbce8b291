"""One case for every class of `combined_losses.losses`: all that a new loss has to add here.

`VARIANTS` are more cases of some of them: of arguments that exclude each other.
"""

import importlib
import pkgutil

from tests.contracts import cases

_FAMILIES = [module.name for module in pkgutil.iter_modules(cases.__path__)]
_MODULES = [importlib.import_module(f"{cases.__name__}.{family}") for family in _FAMILIES]

CASES = [case for module in _MODULES for case in module.CASES]
VARIANTS = [case for module in _MODULES for case in getattr(module, "VARIANTS", ())]
