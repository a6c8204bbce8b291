"""Everything in this folder tries what Keras's training does inside."""

from pathlib import Path

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest reads `-m`
def pytest_collection_modifyitems(items):
    for item in items:  # those of all folders
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker("depends_on_version")
