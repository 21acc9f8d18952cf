"""Templates: sentences with slots, so that who and what is all one has to write. Data and one function."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wanreel.core.errors import InvalidRequest, Problem

_SLOT = re.compile(r"\$\{([a-z_]{1,40})(?::([^${}]{0,200}))?\}")


@dataclass(frozen=True, slots=True)
class Template:
    """A prompt with slots: `${subject}` must be given, `${light:soft light}` has a word of its own."""

    title: str
    text: str

    @property
    def slots(self) -> Mapping[str, str | None]:
        """Name and default of each; None where it must be given."""
        return {match.group(1): match.group(2) for match in _SLOT.finditer(self.text)}


TEMPLATES: Mapping[str, Template] = {
    "portrait": Template(
        "A person, close",
        "Close-up of ${subject}, ${action:looking calmly into the camera}. ${light:Soft window light}, natural skin, "
        "shallow depth of field. The camera slowly pushes in. Photographic.",
    ),
    "landscape": Template(
        "A place, wide",
        "Wide shot of ${place}, ${action:clouds drift and grass moves in the wind}. ${light:Golden hour}, long shadows. "
        "Aerial shot, the camera ${camera:moves forward slowly}. Photographic, fine detail.",
    ),
    "action": Template(
        "Something happens",
        "${subject} ${action} ${place:outdoors}. Medium shot, the camera follows. ${light:Natural light}. Photographic, "
        "natural motion, sharp focus.",
    ),
    "product": Template(
        "A thing, shown off",
        "${subject} on ${place:a plain surface}, turning slowly. Studio lighting, soft shadows, static camera. "
        "Photographic, fine detail.",
    ),
    "animation": Template(
        "Drawn",
        "${subject} ${action} ${place:in a colourful world}. ${style:Anime style}, clean lines, vivid colours. "
        "${camera:The camera stays still}.",
    ),
    "calm picture": Template(
        "For a picture that hardly moves",
        "${action:Subtle breathing, hair and clothes move in a light wind}. Minimal motion, static camera.",
    ),
    "人物": Template(
        "人物近景",
        "${subject}的特写，${action:平静地看着镜头}。${light:柔和的自然光}，浅景深。镜头缓缓推进。写实。",
    ),
    "风景": Template(
        "风景远景",
        "${place}的远景，${action:云在飘动，草随风摇摆}。${light:黄昏}，长长的影子。航拍，镜头缓缓推进。写实，细节丰富。",
    ),
}


def filled(text: str, values: Mapping[str, str]) -> str:
    """A text with its slots filled. Raises InvalidRequest naming every slot that lacks a word, and words without a slot."""
    slots = {match.group(1): match.group(2) for match in _SLOT.finditer(text)}
    problems = [
        Problem(name, "required", f"the template needs ${{{name}}}.", f'Give "{name}" among the variables.')
        for name, default in slots.items()
        if default is None and not values.get(name, "").strip()
    ]
    problems += [
        Problem(name, "unknown_field", "the template has no such slot.", f"It has {', '.join(slots) or 'none'}.")
        for name in values
        if name not in slots
    ]
    if problems:
        raise InvalidRequest(*problems)

    def word(match: re.Match[str]) -> str:
        return values.get(match.group(1), "").strip() or match.group(2)

    return _SLOT.sub(word, text)
