"""`pytest --at-most 4` runs at most 4 of the parameter sets of every test function.

What differs between two backends, or two versions of Keras, shows in a few of the 200 sets of a
test; all of them run where the gate is quickest, on torch. The sets are spread evenly, and each
function begins at another one, so that together the functions still meet every loss and rule.
"""

import zlib

import pytest


class AtMost:
    """A plugin of pytest that leaves out the parameter sets beyond a number."""

    def __init__(self, number):
        self.number = number

    @pytest.hookimpl(trylast=True)  # after `-m` and `-k`, which leave out others
    def pytest_collection_modifyitems(self, config, items):
        functions = {}
        for item in items:
            functions.setdefault(item.nodeid.partition("[")[0], []).append(item)
        chosen = {item for name, sets in functions.items() for item in self.chosen(name, sets)}
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]

    def chosen(self, name, sets):
        if len(sets) <= self.number:
            return sets
        first = zlib.crc32(name.encode()) % len(sets)
        places = [(first + i * len(sets) // self.number) % len(sets) for i in range(self.number)]
        return [sets[place] for place in places]
