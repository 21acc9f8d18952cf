"""The prompts of the evaluation: combinations that training held out, in wordings of its grammar, and prompts outside of it."""

from __future__ import annotations

import random
from dataclasses import dataclass

from training import words
from training.scenes import Frame, Shape, held_out, make_shape, say_chinese, say_motion, say_shape

MOTIONS = (*words.DIRECTIONS, *words.DIAGONALS, *words.CHANGES)
MOVES = ("left", "right", "up", "down", "in", "out", "cw", "ccw", "still")
SAY_MOVE = {
    "left": "the camera pans left", "right": "the camera pans right", "up": "the camera tilts up",
    "down": "the camera tilts down", "in": "zoom in", "out": "the camera zooms out",
    "cw": "the image rotates clockwise", "ccw": "the image rotates counterclockwise", "still": "a static shot",
}  # fmt: skip
#: Nothing here names a motion of the world, or uses its words alone.
FREE_PROMPTS = (
    "a hand enters the frame, pulling a sheet of plastic wrap over three balls of dough",
    "xylophone quartz zeitgeist", "an astronaut rides a horse on mars, volumetric light", "?!",
    "The quick brown fox jumps over the lazy dog!", "wide shot of a neon city in the rain, 35mm", "1234567890",
    "un chat noir dort sur le canapé", "一只猫坐在窗台上看雨", "夕阳下的海边，两个孩子在奔跑", "未来城市的夜景，霓虹灯闪烁",
    "ein Vogel fliegt über den See",
)  # fmt: skip


@dataclass(frozen=True)
class ShapeCase:
    """A prompt and what its clip must show."""

    prompt: str
    shape: str
    color: str
    background: str
    motion: str


def shape_cases(per_motion: int, frame: Frame) -> list[ShapeCase]:
    """`per_motion` held-out combinations for each of the 13 motions, each in one wording at normal speed and size."""
    dice = random.Random("held-out prompts")
    cases: list[ShapeCase] = []
    for motion in MOTIONS:
        for shape, back in _combinations(motion, per_motion, frame, dice):
            color = dice.choice(words.COLOR_WORDS.get(back, [back]))
            behind = dice.choice(
                [f"over a {color} background", f"on a {color} background", f"against a {color} backdrop"]
            )
            prompt = f"{say_shape(shape, True, dice)} {say_motion(motion, 1.0, dice)} {behind}"
            cases.append(ShapeCase(prompt, shape.name, shape.color, back, motion))
    return cases


def chinese_cases(per_motion: int, frame: Frame) -> list[ShapeCase]:
    """The same in Chinese."""
    dice = random.Random("held-out chinese prompts")
    return [
        ShapeCase(say_chinese((shape,), back, dice), shape.name, shape.color, back, motion)
        for motion in MOTIONS
        for shape, back in _combinations(motion, per_motion, frame, dice)
    ]


def _combinations(motion: str, count: int, frame: Frame, dice: random.Random) -> list[tuple[Shape, str]]:
    found: list[tuple[Shape, str]] = []
    while len(found) < count:
        name, (color, back) = dice.choice(list(words.SHAPES)), dice.sample(list(words.COLORS), 2)
        if motion == "spin" and name in ("circle", "ring"):
            continue
        if held_out(name, color, motion, back):
            found.append((make_shape(name, color, motion, "", 1.0, frame, dice), back))
    return found
