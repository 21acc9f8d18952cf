"""Cadence: when a checkpoint is worth its time. Pure arithmetic; knows nothing of files or steps done."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cadence:
    """Saving costs at most `share` of the run time, and a crash loses at most one step or `loss` seconds.

    Where a disk is so slow that both can't hold, the loss is what is held.
    """

    share: float = 0.02  #: of the run time
    loss: float = 30.0  #: seconds of work

    def due(self, *, since_save: float, step: float, save: float) -> bool:
        """Whether to save after a step. In seconds: `since_save` of work not yet saved, `step` of the step just done
        (the next will take as long), `save` of the last save, or a guess before the first."""
        if save <= self.share * since_save:
            return True
        return since_save + step > max(self.loss, step)


ALWAYS = Cadence(share=float("inf"))
