"""The physics-informed examples do what they say; the quick forms what a short run can show."""

import numpy as np
import pytest

from examples import inverse_heat


def test_the_diffusivity_is_found(seeds, pytestconfig):
    if pytestconfig.option.long:
        for seed in seeds:
            found = inverse_heat.main(seed)["diffusivity"][-1]
            assert found == pytest.approx(inverse_heat.D, rel=0.02)
        return
    history = inverse_heat.main(**inverse_heat.QUICK)
    # It begins ten times too large. A short run shows that every epoch brings it nearer.
    diffusivity = history["diffusivity"]
    assert inverse_heat.D < diffusivity[-1] < 0.9 * inverse_heat.START
    assert np.all(np.diff(diffusivity) < 0)
    assert history["data_loss"][-1] < 0.8 * history["data_loss"][0]
