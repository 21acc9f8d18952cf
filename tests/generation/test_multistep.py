"""LMS without SciPy: the integrals are those of the polynomials, by numpy's polynomial arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from wanreel.generation.multistep import LinearMultistep


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_coefficients_are_the_polynomials_integrals(order: int) -> None:
    scheduler = LinearMultistep(beta_schedule="scaled_linear")
    scheduler.set_timesteps(12)
    sigmas = [float(sigma) for sigma in scheduler.sigmas]
    for step in range(order - 1, 12):
        levels = sigmas[step - order + 1 : step + 1][::-1]
        for current, here in enumerate(levels):
            others = [level for level in levels if level != here]
            whole = np.polynomial.Polynomial([1.0])
            for other in others:
                whole *= np.polynomial.Polynomial([-other, 1.0]) / (here - other)
            whole = whole.integ()
            wanted = float(whole(sigmas[step + 1]) - whole(sigmas[step]))
            found = scheduler.get_lms_coefficient(order, step, current)
            assert found == pytest.approx(wanted, rel=1e-9, abs=1e-9)


def test_the_coefficients_of_a_step_add_up_to_it() -> None:
    scheduler = LinearMultistep()
    scheduler.set_timesteps(6)
    step = float(scheduler.sigmas[5] - scheduler.sigmas[4])
    assert sum(scheduler.get_lms_coefficient(4, 4, current) for current in range(4)) == pytest.approx(step, rel=1e-6)
