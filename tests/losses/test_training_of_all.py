"""Every loss trains: each has a row in a table of one of the files `test_training*.py` beside this.

The rows of the tables are all classes and presets of `cl.losses`.
"""

import importlib
from pathlib import Path

import pytest

import combined_losses as cl
from tests.losses.training import name_in

FILES = sorted(path.stem for path in Path(__file__).parent.glob("test_training*.py"))
TABLES = ()


@pytest.mark.backend_free
def test_every_loss_and_preset_is_trained():
    classes = {
        name
        for name in cl.losses.__all__
        if isinstance(getattr(cl.losses, name), type) and name != "Loss"
    }
    modules = [importlib.import_module(f"tests.losses.{file}") for file in FILES]
    trained = {name_in(key) for module in modules for table in module.TABLES for key in table}
    assert trained == classes | set(cl.losses.presets.__all__), "add a row to test_training*.py"
