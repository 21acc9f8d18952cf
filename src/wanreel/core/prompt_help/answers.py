"""What a language model answered, as a prompt, or why it is none. Pure; asks nobody."""

from __future__ import annotations

import re
from collections import Counter

from wanreel.core.prompt_help.enhance import LONGEST, Wanted, language_of
from wanreel.core.prompt_help.tokens import Tokens
from wanreel.core.prompt_help.words import Language

_THOUGHT = re.compile(r"<think(?:ing)?>.*?</think(?:ing)?>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"^```[\w-]*\s*(.*?)\s*```$", re.DOTALL)
_LABEL = re.compile(
    r"^(?:(?:sure|certainly|of course|okay|ok)[^:\n]{0,60}[:!]\s*)?"
    r"(?:(?:here(?:'s| is)[^:\n]{0,80}|(?:improved|enhanced|rewritten|revised|final|video)?\s*prompt|改写后的提示词|提示词)\s*[:：]\s*)",
    re.IGNORECASE,
)
_QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("「", "」"), ("*", "*"))
_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am) sorry|i can(?:'t|not) (?:help|assist|comply|do)|as an ai|i(?:'m| am) unable|cannot fulfil)"
    r"|抱歉|作为.{0,4}AI|无法(?:提供|完成|帮助)",
    re.IGNORECASE,
)
_WORD = re.compile(r"[^\W_]{4,}")
_HAN_PAIR = re.compile(r"(?=([\u3400-\u9fff]{2}))")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_SHORTEST = 12  # characters of an answer in English; Chinese says as much in four
_REPEATED = 4  # times the same five words may come


class Unusable(Exception):
    """The answer is no prompt. Its text says why."""


def usable(answer: str, original: str, tokens: Tokens) -> str:
    """The prompt in an answer, freed of what surrounds it. Raises Unusable."""
    text = _bare(answer)
    if not text:
        raise Unusable("it is empty")
    if _REFUSAL.search(text[:200]):
        raise Unusable("it declines")
    if _CONTROL.search(text) or "://" in text or text[0] in "{[<":
        raise Unusable("it is no prose")
    if len(text) < (_SHORTEST if language_of(text) == "en" else _SHORTEST // 3):
        raise Unusable("it is too short")
    if len(text) > LONGEST or tokens.count(text) > tokens.limit:
        raise Unusable(f"it is longer than the {tokens.limit} tokens that are read")
    if _repeats(text):
        raise Unusable("it repeats itself")
    if _strange(text, original):
        raise Unusable("it is about something else")
    return text


def _bare(answer: str) -> str:
    text = _THOUGHT.sub(" ", answer).strip()
    fence = _FENCE.match(text)
    text = (fence.group(1) if fence else text).strip()
    text = _LABEL.sub("", text).strip()
    for first, last in _QUOTES:
        while len(text) > 2 and text.startswith(first) and text.endswith(last):
            text = text[1:-1].strip()
    return " ".join(text.split())


def _repeats(text: str) -> bool:
    words = text.casefold().split()
    runs = Counter(tuple(words[start : start + 5]) for start in range(len(words) - 4))
    marks = Counter(text[start : start + 12] for start in range(len(text) - 11))
    return any(count > _REPEATED for count in runs.values()) or any(count > 2 * _REPEATED for count in marks.values())


def _strange(text: str, original: str) -> bool:
    """Whether nothing of the original is left. What was written in another language can't be told."""
    if language_of(text) != language_of(original):
        return False
    kept, said = _contents(original), _contents(text)
    return len(kept) >= 3 and not any(word[:4] in {it[:4] for it in said} for word in kept)


def _contents(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)} | set(_HAN_PAIR.findall(text))


def instruction(wanted: Wanted, language: Language, limit: int) -> str:
    """What a language model is told to do."""
    words = min(120, limit // 3)
    subject = (
        "The first frame is given as a picture. Describe only what moves, how, and what the camera does; do not describe "
        "what the picture shows already and contradict none of it."
        if wanted.from_picture
        else "Name who or what it is, what it does, how the camera sees it, the light, and the style once. One action: "
        "the clip lasts five seconds."
    )
    tongue = "Chinese" if language == "zh" else "English"
    return (
        "You rewrite prompts for a text-to-video model that was trained on long, factual descriptions of clips. Keep every "
        f"fact, name and quoted text of the user's prompt. {subject} No lists, no quotation marks, no comments, no "
        f"negations. At most {words} words, in {tongue}. Answer with the new prompt alone."
    )
