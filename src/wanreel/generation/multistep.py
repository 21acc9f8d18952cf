"""Diffusers' linear multistep solver without SciPy, which it takes for one integral. Knows nothing of pictures."""

from __future__ import annotations

import math

from diffusers.schedulers.scheduling_lms_discrete import LMSDiscreteScheduler


class LinearMultistep(LMSDiscreteScheduler):
    """As `LMSDiscreteScheduler`, of orders up to four: those that Diffusers takes."""

    def get_lms_coefficient(self, order: int, t: int, current_order: int) -> float:
        """The integral over a step of Lagrange's polynomial that is 1 at one of the last `order` noise levels.

        Its degree is `order` - 1. Gauss' rule of two points is exact up to degree three.
        """
        levels = [float(self.sigmas[t - back]) for back in range(order)]
        here = levels.pop(current_order)
        start, end = float(self.sigmas[t]), float(self.sigmas[t + 1])
        middle, half = (start + end) / 2, (end - start) / 2
        points = (middle - half / math.sqrt(3), middle + half / math.sqrt(3))
        return half * sum(math.prod((at - level) / (here - level) for level in levels) for at in points)
