"""enhance: a prompt by the rules of what the Wan models were trained on. Pure; knows no models, networks or files.

Doubled and contradicting words go, what is not said about camera, light, look and quality is added, and the whole keeps
within what the text encoder reads. Enhancing the result again changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from wanreel.core.prompt_help.clauses import Clause, clauses_of, joined, plain, without
from wanreel.core.prompt_help.tokens import Tokens
from wanreel.core.prompt_help.words import FROM_PICTURE, FROM_TEXT, VACE, Addition, Concept, Language, clash, said

Kind = Literal["cleaned", "duplicate", "contradiction", "shortened", "added", "written"]
By = Literal["rules", "model"]

LONGEST = 4000  #: characters of a prompt that a request may have
_SHADED = frozenset({"look", "light", "time"})  # axes on which "vintage, super 8" is more than either
_ROUNDS = 4  # of which the second nearly always changes nothing
_HAN = re.compile(r"[\u3400-\u9fff]")
_LETTER = re.compile(r"[^\W\d_]")
_NEGATION = re.compile(r"(?<!\w)(?:no|without|don't|do not|avoid)\s+(\w+)|(?:没有|不要|避免)(\w{1,4})", re.IGNORECASE)
#: Words that do not make a clause more than its vocabulary.
_FILLERS = frozenset(
    {
        "a",
        "an",
        "the",
        "with",
        "in",
        "on",
        "of",
        "and",
        "is",
        "are",
        "at",
        "it",
        "very",
        "style",
        "shot",
        "shots",
        "camera",
        "view",
        "light",
        "lighting",
        "scene",
        "look",
        "video",
        "image",
        "slow",
        "slowly",
        "smoothly",
        "smooth",
        "gentle",
        "gently",
        "movement",
    }
)
_FILLERS_ZH = re.compile(r"[的地着了和与镜头画面风格]")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What help is asked for."""

    from_picture: bool = False  #: a picture says who, where and in what style
    cinematic: bool = True  #: cinematic vocabulary too
    add: bool = True  #: False: only what is wrong is cured


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between the original and the enhanced prompt."""

    kind: Kind
    text: str  #: the words that went or came
    reason: str


@dataclass(frozen=True, slots=True)
class Hint:
    """Something the writer should know, which nothing was done about."""

    code: str  #: negation, contradiction, vace, …
    text: str


@dataclass(frozen=True, slots=True)
class Enhancement:
    """Two prompts side by side."""

    original: str
    enhanced: str
    language: Language
    tokens_before: int
    tokens_after: int
    token_limit: int
    tokens_exact: bool  #: a model's own tokenizer counted; False: an estimate
    tokens_by: str
    changes: tuple[Change, ...] = ()
    hints: tuple[Hint, ...] = ()
    styles: tuple[str, ...] = ()  #: found in the original: photographic, anime, …
    looks: tuple[str, ...] = ()  #: cinematic, vintage, …
    vace: tuple[str, ...] = ()  #: controls of the VACE kind that it asks for: depth, pose, …
    by: By = "rules"

    @property
    def changed(self) -> bool:
        return self.enhanced != self.original

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {**asdict(self), "changed": self.changed}


def enhance(prompt: str, wanted: Wanted | None = None, tokens: Tokens | None = None) -> Enhancement:
    """The prompt, and how it could be better. Idempotent: the result's own enhancement is itself."""
    wanted, tokens = wanted or Wanted(), tokens or Tokens()
    text, changes = prompt, list[Change]()
    for _ in range(_ROUNDS):
        pass_ = _Pass(text, wanted, tokens)
        found = pass_.run()
        changes += pass_.changes
        if found == text:
            break
        text = found
    meanings = [it.concept for it in said(prompt)]
    vace = tuple(it.value for it in VACE if any(it.spans(prompt)))
    return Enhancement(
        original=prompt,
        enhanced=text,
        language=language_of(prompt),
        tokens_before=tokens.count(prompt),
        tokens_after=tokens.count(text),
        token_limit=tokens.limit,
        tokens_exact=tokens.exact,
        tokens_by=tokens.source,
        changes=tuple(dict.fromkeys(changes)),
        hints=tuple(_hints(text, vace)),
        styles=_values(meanings, "style"),
        looks=_values(meanings, "look"),
        vace=vace,
    )


def written(before: Enhancement, text: str, tokens: Tokens) -> Enhancement:
    """The same with a text that a language model wrote."""
    change = Change("written", text, "written by a language model")
    hints = tuple(_hints(text, before.vace))
    return replace(before, enhanced=text, tokens_after=tokens.count(text), changes=(change,), hints=hints, by="model")


def language_of(text: str) -> Language:
    """Chinese where at least half of the letters are."""
    letters = len(_LETTER.findall(text))
    return "zh" if letters and len(_HAN.findall(text)) * 2 >= letters else "en"


def fits(text: str, tokens: Tokens) -> bool:
    """Whether the encoder reads all of it and a request takes it."""
    return len(text) <= LONGEST and tokens.count(text) <= tokens.limit


def _values(meanings: Sequence[Concept], axis: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(it.value for it in meanings if it.axis == axis))


def _hints(text: str, vace: tuple[str, ...]) -> Iterator[Hint]:
    for match in _NEGATION.finditer(text):
        word = match.group(1) or match.group(2)
        yield Hint("negation", f"“{match.group(0)}” shows {word} rather than not: say it in the negative prompt.")
        break
    meanings = [it.concept for it in said(text)]
    lapse = any(it.value == "time-lapse" for it in meanings)
    for number, one in enumerate(meanings):
        other = next((it for it in meanings[:number] if clash(it, one)), None)
        if other is not None and not (lapse and one.axis == "time"):
            yield Hint(
                "contradiction", f"It says {other.value} and {one.value}: a clip of a few seconds shows one of them."
            )
            break
    if vace:
        controls = ", ".join(vace)
        yield Hint("vace", f"{controls}: that is asked of VACE models; here a first or a last picture steers a video.")


@dataclass
class _Pass:
    """Once through the rules, one concern a method."""

    text: str
    wanted: Wanted
    tokens: Tokens
    changes: list[Change] = field(default_factory=list[Change])

    def run(self) -> str:
        cleaned = plain(self.text)
        if cleaned != self.text:
            self._note("cleaned", "( : ) < >", "weights and tags of other programs are read as words here")
        clauses = clauses_of(cleaned)
        clauses = self._without_doubles(clauses)
        clauses = self._without_contradictions(clauses)
        clauses = self._shortened(clauses)
        return self._with_additions(clauses) if self.wanted.add else joined(clauses)

    def _note(self, kind: Kind, text: str, reason: str) -> None:
        self.changes.append(Change(kind, text, reason))

    def _without_doubles(self, clauses: list[Clause]) -> list[Clause]:
        """No clause twice, and no clause of vocabulary whose meanings were said before."""
        number, seen, meant = 0, set[str](), set[tuple[str, str]]()
        while number < len(clauses):
            clause = clauses[number]
            here = _meanings(clause)
            again = clause.key in seen or bool(here and _pure(clause) and here <= meant)
            if again and clause.key:
                self._note("duplicate", clause.text, "said before")
                clauses = without(clauses, number)
                continue
            seen.add(clause.key)
            meant |= here
            number += 1
        return clauses

    def _without_contradictions(self, clauses: list[Clause]) -> list[Clause]:
        """What was said first stays. A clause goes when it is nothing but vocabulary; in a sentence it is left alone."""
        number, before = 0, list[Concept]()
        while number < len(clauses):
            clause = clauses[number]
            here = [it.concept for it in said(clause.text)]
            against = next(((one, it) for one in here for it in before if clash(it, one)), None)
            if against is not None and _pure(clause):
                self._note("contradiction", clause.text, f"{against[1].value} was said before")
                clauses = without(clauses, number)
                continue
            before += here
            number += 1
        return clauses

    def _shortened(self, clauses: list[Clause]) -> list[Clause]:
        """As much from the beginning as is read."""
        gone: list[str] = []
        while len(clauses) > 1 and not fits(joined(clauses), self.tokens):
            gone.append(clauses[-1].text)
            clauses = without(clauses, len(clauses) - 1)
        if clauses and not fits(joined(clauses), self.tokens):
            clause = clauses[0]
            kept = _prefix(clause.text, lambda text: fits(joined([Clause(text, clause.end)]), self.tokens))
            gone.append(clause.text[len(kept) :].strip())
            clauses = [Clause(kept, clause.end)] if kept else []
        if gone:
            reason = f"the encoder reads {self.tokens.limit} tokens"
            self._note("shortened", _excerpt(" … ".join(reversed(gone))), reason)
        return clauses

    def _with_additions(self, clauses: list[Clause]) -> str:
        base = joined(clauses)
        if not base:
            return base
        language = language_of(base)
        known = {it.concept.axis for it in said(base)}
        styles = {it.concept.value for it in said(base) if it.concept.axis == "style"} or {""}
        chosen: list[str] = []
        for addition in FROM_PICTURE if self.wanted.from_picture else FROM_TEXT:
            if known.intersection(addition.axes) or not self._wants(addition, styles):
                continue
            longer = _with(clauses, [*chosen, addition.text(language)], language)
            if fits(longer, self.tokens):
                chosen.append(addition.text(language))
                known |= {it.concept.axis for it in said(chosen[-1])}
                self._note("added", chosen[-1], f"nothing was said of {' or '.join(addition.axes)}")
        return _with(clauses, chosen, language) if chosen else base

    def _wants(self, addition: Addition, styles: set[str]) -> bool:
        return (self.wanted.cinematic or not addition.cinematic) and (
            not addition.styles or bool(styles.intersection(addition.styles))
        )


def _with(clauses: list[Clause], added: Sequence[str], language: Language) -> str:
    """Sentences get another sentence, lists go on."""
    comma, stop, gap = ("，", "。", "") if language == "zh" else (", ", ".", " ")
    more = comma.join(added)
    base = joined(clauses)
    if not any(it.stops for it in clauses):
        return base + comma + more
    last = clauses[-1]
    ended = base if last.stops else base + stop
    return ended + gap + more[:1].upper() + more[1:] + stop


def _meanings(clause: Clause) -> set[tuple[str, str]]:
    """What it says on the axes where saying it in other words adds nothing."""
    return {(it.concept.axis, it.concept.value) for it in said(clause.text) if it.concept.axis not in _SHADED}


def _pure(clause: Clause) -> bool:
    """Whether a clause is nothing but vocabulary."""
    text = clause.text
    for found in sorted(said(text), key=lambda it: it.start, reverse=True):
        text = text[: found.start] + " " + text[found.end :]
    words = re.findall(r"\w+", _FILLERS_ZH.sub(" ", text.casefold()))
    return all(word in _FILLERS for word in words)


def _prefix(text: str, good: Callable[[str], bool]) -> str:
    """The longest beginning of whole words, or of characters where there are no spaces, that is good."""
    ends = [it.start() for it in re.finditer(r"\s+", text)] if " " in text else list(range(1, len(text)))
    low, high = 0, len(ends)
    while low < high:
        middle = (low + high + 1) // 2
        if good(text[: ends[middle - 1]]):
            low = middle
        else:
            high = middle - 1
    return text[: ends[low - 1]].rstrip() if low else ""


def _excerpt(text: str, longest: int = 160) -> str:
    return text if len(text) <= longest else text[: longest - 1].rstrip() + "…"
