"""The physics-informed examples do what they say; the quick forms what a short run can show."""

import numpy as np
import pytest

from examples import burgers, inverse_heat

QUICK_KINDS = ("equal", "ConFIG")
LONG = 5e-3  # the aim; 1.5e-3 was measured


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


@pytest.mark.backend_free
def test_the_exact_solution_obeys_burgers_equation():
    x, t = np.meshgrid(np.linspace(-1, 1, 401), np.linspace(0.1, 0.2, 41))
    u = burgers.exact(x, t)
    u_t, u_x = np.gradient(u, t[:, 0], x[0])
    u_xx = np.gradient(u_x, x[0], axis=1)
    residual = (u_t + u * u_x - burgers.NU * u_xx)[1:-1, 2:-2]
    assert np.abs(residual).max() < 1e-2 * np.abs(u_t).max()
    np.testing.assert_allclose(u[:, [0, -1]], 0, atol=1e-12)
    start = burgers.exact(x[0], np.full_like(x[0], 1e-9))
    np.testing.assert_allclose(start, -np.sin(np.pi * x[0]), atol=1e-6)
    # More nodes change nothing.
    np.testing.assert_allclose(burgers.EXACT, burgers.exact(burgers.X, burgers.T, 150), atol=1e-12)


def test_burgers_equation_is_learned_with_every_kind_of_weights(pytestconfig):
    if pytestconfig.option.long:
        errors = {name: result[2] for name, result in burgers.main().items()}
        assert min(errors.values()) < LONG
        return
    for name, (found, history, error, _) in burgers.main(QUICK_KINDS, **burgers.QUICK).items():
        curves = history.history
        assert {"loss", "pde_loss", "ic_loss", "bc_loss"} <= set(curves), name
        assert curves["ic_loss"][-1] < curves["ic_loss"][0], name
        assert error < 1, name  # 1 is what u = 0 has
        np.testing.assert_allclose(found, -found[:, ::-1], atol=1e-6)  # odd in x
