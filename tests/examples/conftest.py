"""The examples run with one seed; in their long form (`pytest --long`) with five."""


def pytest_generate_tests(metafunc):
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(5 if metafunc.config.option.long else 1))
