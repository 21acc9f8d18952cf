"""PromptHelp: what every front door asks for a better prompt. By rules, or by a language model where the operator has one.

Never replaces anything: it answers both texts. Where the model fails, the rules help in its place, and that is said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

from wanreel.core.errors import InvalidRequest, RemoteError
from wanreel.core.prompt_help import TEMPLATES, Enhancement, Tokens, Wanted, enhance, expand, filled, has_wildcards
from wanreel.core.prompt_help.answers import Unusable, instruction, usable
from wanreel.core.prompt_help.enhance import LONGEST, Hint, written
from wanreel.models.tokens import TokenCounts
from wanreel.wiring import Runtime

_log = logging.getLogger(__name__)

By = Literal["auto", "rules", "model"]


class Writer(Protocol):
    """A language model."""

    @property
    def sees(self) -> bool:
        """Whether it takes pictures."""
        ...

    def write(self, told: str, prompt: str, png: bytes | None = None) -> str:
        """Raises RemoteError."""
        ...


@dataclass(frozen=True, slots=True)
class HelpAsked:
    """What help is asked for."""

    prompt: str = ""
    template: str = ""  #: one of TEMPLATES, in the place of a prompt
    variables: Mapping[str, str] = field(default_factory=dict[str, str])  #: words for the template's or prompt's slots
    seed: int = 0  #: draws wildcards
    model: str | None = None  #: the video model whose tokenizer counts
    by: By = "auto"
    png: bytes | None = None  #: the first frame
    from_picture: bool = False
    cinematic: bool = True
    add: bool = True


@dataclass(frozen=True)
class PromptHelp:
    """Over one runtime and the operator's language model, if there is one."""

    runtime: Runtime
    writer: Writer | None = None
    counts: TokenCounts | None = None

    def enhance(self, asked: HelpAsked) -> Enhancement:
        """Both prompts. Raises InvalidRequest for what can't be asked."""
        text = _text(asked)
        tokens = self._tokens(asked)
        wanted = Wanted(asked.from_picture or asked.png is not None, asked.cinematic, asked.add)
        drawn = expand(text, asked.seed) if has_wildcards(text) else text
        found = enhance(drawn, wanted, tokens)
        if asked.by == "model" and self.writer is None:
            raise InvalidRequest.of("by", "unsupported", "no language model is set up here.", "Use rules.")
        if asked.by != "rules" and self.writer is not None:
            found = self._written(self.writer, found, wanted, tokens, asked.png)
        return replace(found, original=text, tokens_before=tokens.count(text))

    def _written(
        self, writer: Writer, found: Enhancement, wanted: Wanted, tokens: Tokens, png: bytes | None
    ) -> Enhancement:
        """By the model; by rules, and with a word on it, where it fails."""
        told = instruction(wanted, found.language, tokens.limit)
        try:
            text = usable(writer.write(told, found.original, png), found.original, tokens)
        except RemoteError as error:
            reason = error.message
        except Unusable as error:
            reason = f"The language model's answer can't be used: {error}."
        else:
            made = written(found, text, tokens)
            if png is not None and not writer.sees:
                made = replace(made, hints=(*made.hints, Hint("not_seen", "The language model takes no pictures.")))
            return made
        _log.warning("prompt help: %s", reason)
        hint = Hint("model_failed", f"{reason} Rules helped in its place.")
        return replace(found, hints=(hint, *found.hints))

    def _tokens(self, asked: HelpAsked) -> Tokens:
        settings = self.runtime.settings
        pictured = asked.from_picture or asked.png is not None
        name = asked.model or (settings.default_picture_model if pictured else settings.default_text_model)
        counts = self.counts or TokenCounts(self.runtime.shelf)
        return counts.of(self.runtime.catalog.get(name))


def _text(asked: HelpAsked) -> str:
    """The prompt or template, its slots filled. Raises InvalidRequest."""
    if asked.template:
        template = TEMPLATES.get(asked.template)
        if template is None:
            hint = f"Choose {' | '.join(TEMPLATES)}."
            raise InvalidRequest.of("template", "unknown_value", f"there is no template {asked.template!r}.", hint)
        if asked.prompt.strip():
            raise InvalidRequest.of("prompt", "contradiction", "was given beside a template.", "Give one of them.")
        text = filled(template.text, asked.variables)
    else:
        text = filled(asked.prompt, asked.variables) if asked.variables else asked.prompt
    if not text.strip():
        raise InvalidRequest.of("prompt", "required", "is empty.", "Describe what happens in the video.")
    if len(text) > LONGEST:
        raise InvalidRequest.of("prompt", "too_long", f"has {len(text)} characters; at most {LONGEST} are read.")
    return text
