"""What `dir()`, and with it completion, shows of each public package: its public names alone."""

import pytest

import combined_losses as cl

PACKAGES = [cl, cl.callbacks, cl.diagnosis, cl.losses, cl.plots, cl.weightings, cl.wrappers]


def without_dunders(names):
    return [name for name in names if not (name.startswith("__") and name.endswith("__"))]


@pytest.mark.backend_free
@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_dir_shows_the_public_names_alone(package):
    assert without_dunders(dir(package)) == without_dunders(sorted(package.__all__))
