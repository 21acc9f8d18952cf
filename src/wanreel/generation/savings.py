"""Savings: steps whose velocity the steps before foretell are left out (turbo). Knows nothing of models or guidance.

Along a flow's way from noise to latents the guided velocity changes slowly, so a line through the last two that were
computed comes close to the next one. How close is measured at every step that is computed: the error of such a line is
its curvature times the distances to both points, so one measured error foretells the next, and a step is left out
where that stays small. All that is remembered is in the state, so that a resumed run leaves out the same steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wanreel.generation.state import SolverState

#: Largest expected error of a velocity that is foretold, relative (L2). docs/speed.md has what becomes of it.
LIMIT = 0.25
#: The same where velocities are rounded to fp8 on their way: what a line misses then is rounding for the most part.
ROUNDED_LIMIT = 0.75
#: And of the line's slope this share is taken, as a line through two rounded points multiplies what was rounded.
ROUNDED_SLOPE = 0.5
#: Steps in a row that may be left out.
IN_A_ROW = 3
#: Share of the first steps that are always computed: they decide what the video shows.
FIRST = 0.2
#: Runs of fewer steps leave none out.
FEWEST = 8


@dataclass
class Savings:
    """Of one run of `total` steps."""

    total: int
    rounded: bool = False  #: velocities are computed in fp8
    left_out: int = 0
    _row: int = 0  # steps left out since the last one that was computed
    _kind: int = 0
    _sigmas: tuple[float, ...] = ()  # of the velocities that are kept, the newest last
    _kept: tuple[Tensor, ...] = ()
    _bend: float = float("inf")  # error over the product of both distances, as last measured

    def foretold(self, index: int, sigma: float, kind: int) -> Tensor | None:
        """The velocity at `sigma`, or None where step `index` has to be computed.

        `kind` tells apart what makes velocities that don't continue each other: expert, guidance on or off.
        """
        first = max(2, round(FIRST * self.total))
        if self.total < FEWEST or index < first or index == self.total - 1 or kind != self._kind:
            return None
        if len(self._kept) < 2 or self._row >= IN_A_ROW or self._bend * self._distance(sigma) > self._limit:
            return None
        self._row += 1
        self.left_out += 1
        return self._line(sigma)

    def learn(self, sigma: float, velocity: Tensor, kind: int) -> None:
        """A velocity was computed."""
        if kind != self._kind:
            self._kept, self._sigmas, self._bend, self._kind = (), (), float("inf"), kind
        if len(self._kept) == 2:
            error = torch.linalg.vector_norm(self._line(sigma) - velocity) / torch.linalg.vector_norm(velocity)
            self._bend = float(error) / max(self._distance(sigma), 1e-12)
        self._kept, self._sigmas = (*self._kept[-1:], velocity), (*self._sigmas[-1:], sigma)
        self._row = 0

    def state(self) -> SolverState:
        """What `load` takes."""
        tensors = {f"velocity{number}": kept for number, kept in enumerate(self._kept)}
        numbers = torch.tensor([self._bend, *self._sigmas], dtype=torch.float64)
        scalars = {"left_out": self.left_out, "row": self._row, "kind": self._kind}
        return SolverState({**tensors, "numbers": numbers}, scalars)

    def load(self, state: SolverState) -> None:
        """Go on from there; from a state without savings as at the beginning."""
        if "numbers" not in state.tensors:
            return
        self._bend, *sigmas = state.tensors["numbers"].tolist()
        self._sigmas = tuple(sigmas)
        self._kept = tuple(state.tensors[f"velocity{number}"] for number in range(len(sigmas)))
        self.left_out, self._row = state.scalars["left_out"], state.scalars["row"]
        self._kind = state.scalars["kind"]

    def _line(self, sigma: float) -> Tensor:
        """Through both velocities, at `sigma`."""
        (before, last), (start, end) = self._kept, self._sigmas
        return last + (last - before) * (self._slope * (sigma - end) / (end - start))

    @property
    def _limit(self) -> float:
        return ROUNDED_LIMIT if self.rounded else LIMIT

    @property
    def _slope(self) -> float:
        return ROUNDED_SLOPE if self.rounded else 1.0

    def _distance(self, sigma: float) -> float:
        start, end = self._sigmas
        return abs(sigma - start) * abs(sigma - end)
