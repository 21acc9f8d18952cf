"""The prompt that runs, of the one that was asked: wildcards drawn, words added where that is wanted, both told of."""

from __future__ import annotations

from dataclasses import dataclass

from wanreel.core.adjustment import Adjustment
from wanreel.core.prompt_help.enhance import Wanted, enhance
from wanreel.core.prompt_help.wildcards import expand, has_wildcards


@dataclass(frozen=True, slots=True)
class Prompt:
    """What runs, and what was written."""

    text: str
    original: str  #: as it was before anything was drawn or added; empty where it is the same
    adjustments: tuple[Adjustment, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptAsked:
    """A prompt and what is to become of it."""

    text: str
    original: str | None = None  #: what the user wrote, where `text` is what came of it already
    wildcards: bool | None = None  #: None: drawn where there are any
    enhance: bool | None = None
    from_picture: bool = False

    def resolved(self, seed: int) -> Prompt:
        """Raises InvalidRequest for wildcards that can't be drawn."""
        text, notes = self.text, list[Adjustment]()
        if self.wildcards is not False and has_wildcards(text):
            text = expand(text, seed)
            notes.append(Adjustment("prompt", self.text, text, f"wildcards drawn by seed {seed}"))
        if self.enhance:
            found = enhance(text, Wanted(from_picture=self.from_picture))
            if found.changed:
                said = ", ".join(dict.fromkeys(f"{change.kind}: {change.text}" for change in found.changes))
                notes.append(Adjustment("prompt", text, found.enhanced, said))
                text = found.enhanced
        original = self.original or self.text
        return Prompt(text, "" if original == text else original, tuple(notes))
