"""The grammar: prompts and the numbers that draw what they say. Draws nothing itself.

A slice of all (shape, colour, motion, background) combinations is held out of training, for the evaluation.
"""

from __future__ import annotations

import math
import random
import zlib
from dataclasses import dataclass, replace

from training import words
from training.drawing import Camera, camera_move
from training.textures import KINDS

Color = tuple[float, float, float]


@dataclass(frozen=True)
class Shape:
    """One shape of a scene. Lengths in pixels, speeds in pixels a frame, angles in radians."""

    name: str
    color: str
    motion: str
    size: str  #: "", "small" or "big"
    speed: float
    rgb: Color
    x: float
    y: float
    radius: float
    vx: float = 0.0
    vy: float = 0.0
    angle: float = 0.0
    grow: float = 0.0  #: log radius a frame
    spin: float = 0.0
    bounce: float = 0.0


@dataclass(frozen=True)
class Scene:
    """What a clip shows. `background` is a colour, a kind of texture, or "any" texture.

    `moving` shapes are painted over the camera's picture; the others belong to the picture that the camera moves over.
    """

    background: Color | str
    shapes: tuple[Shape, ...] = ()
    moving: bool = False
    camera: Camera = Camera()


@dataclass(frozen=True)
class Frame:
    """The size of a clip: pixels and frames."""

    height: int
    width: int
    frames: int


def held_out(shape: str, color: str, motion: str, background: str) -> bool:
    """Whether this combination is kept for the evaluation (one in sixteen)."""
    return zlib.crc32(f"{shape} {color} {motion} {background}".encode()) % 16 == 3


def color_value(name: str, dice: random.Random, jitter: float = 0.05) -> Color:
    """A named colour in [-1, 1], with a little chance in it."""
    r, g, b = (max(-1.0, min(1.0, part / 127.5 - 1 + dice.uniform(-jitter, jitter))) for part in words.COLORS[name])
    return r, g, b


def make_shape(  # noqa: PLR0913 (a shape is these)
    name: str, color: str, motion: str, size: str, speed: float, frame: Frame, dice: random.Random
) -> Shape:
    """A shape's numbers, such that it stays inside of the frame for the whole clip."""
    last = max(1, frame.frames - 1)
    base = min(frame.height, frame.width)
    low, high = {"small": (0.09, 0.11), "": (0.13, 0.18), "big": (0.22, 0.26)}[size]
    radius = base * dice.uniform(low, high)
    if motion == "grow":
        radius *= 0.7
    elif motion == "shrink":
        radius = max(radius, base * 0.16) * 1.25
    grow = {"grow": 0.035, "shrink": -0.035}.get(motion, 0.0) * speed * 16 / max(16, last)
    room_x, room_y = (max(1.0, length - 2 * radius - 4) for length in (frame.width, frame.height))
    vx, vy = _velocity(motion, speed)
    vx = max(-1.0, min(1.0, vx * last / room_x)) * room_x / last
    vy = max(-1.0, min(1.0, vy * last / room_y)) * room_y / last
    bounce = min(24.0, room_y * 0.7) if motion == "bounce" else 0.0
    reach = radius * (math.exp(grow * last) if grow > 0 else 1.0) + 2
    return Shape(
        name, color, motion, size, speed, color_value(color, dice),
        x=_start(frame.width, reach, vx * last, 0.0, dice), y=_start(frame.height, reach, vy * last, bounce, dice),
        radius=radius, vx=vx, vy=vy, angle=dice.choice([0.0, 0.0, 0.0, dice.uniform(-0.3, 0.3)]), grow=grow,
        spin=math.radians(6) * speed if motion == "spin" else 0.0, bounce=bounce,
    )  # fmt: skip


def _velocity(motion: str, speed: float) -> tuple[float, float]:
    if motion in words.DIRECTIONS:
        dx, dy = words.DIRECTIONS[motion]
        return 2 * speed * dx, 2 * speed * dy
    if motion in words.DIAGONALS:
        parts = [words.DIRECTIONS[way] for way in motion.split("-")]
        return 1.5 * speed * sum(p[0] for p in parts), 1.5 * speed * sum(p[1] for p in parts)
    return 0.0, 0.0


def _start(length: int, reach: float, travel: float, headroom: float, dice: random.Random) -> float:
    """A starting coordinate from which the shape never leaves the frame."""
    low = reach + max(0.0, -travel) + headroom
    high = length - reach - max(0.0, travel)
    return dice.uniform(low, high) if high > low else (low + high) / 2


def sample_scene(frame: Frame, dice: random.Random) -> tuple[str, Scene]:
    """One training example: its prompt and what it shows."""
    if dice.random() < 0.5:
        return _shape_scene(frame, dice)
    if dice.random() < 0.06:  # free text that names no motion means a slow push in
        return _noise_words(2, 14, dice), Scene("any", camera=camera_move("in", 0.5))
    return _camera_scene(frame, dice)


def _shape_scene(frame: Frame, dice: random.Random) -> tuple[str, Scene]:
    two = dice.random() < 0.2
    names = dice.sample(list(words.COLORS), 4)
    back = names[3]
    flat = dice.random() < 0.8
    shapes = tuple(_pick_shape(names[i], back, two, frame, dice) for i in range(2 if two else 1))
    if flat and dice.random() < 0.08:
        return say_chinese(shapes, back, dice), Scene(color_value(back, dice, 0.04), shapes, moving=True)
    said = [f"{say_shape(s, two or dice.random() < 0.92, dice)} {say_motion(s.motion, s.speed, dice)}" for s in shapes]
    text = dice.choice([" and ", ", ", " while "]).join(said)
    texture = dice.choice(["clouds", "gradient", "stripes", "checkers", "leaves"])
    if not flat:
        text += f" over {dice.choice(words.TEXTURES[texture])}"
    elif dice.random() < 0.92:
        color = dice.choice(words.COLOR_WORDS.get(back, [back]))
        text += dice.choice([
            f" over a {color} background", f" over a {color} background", f" on a {color} background",
            f" on {color}", f" against a {color} backdrop", f", {color} background",
        ])  # fmt: skip
    if dice.random() < 0.12:
        text = f"{text}. {_noise_words(1, 5, dice)}"
    background = color_value(back, dice, 0.04) if flat else texture
    return _dress(text, 0.12, dice), Scene(background, shapes, moving=True)


def _pick_shape(color: str, back: str, two: bool, frame: Frame, dice: random.Random) -> Shape:
    motions = [*list(words.DIRECTIONS) * 3, *list(words.CHANGES) * 2, *words.DIAGONALS]
    while True:
        motion = dice.choice(motions)
        speed = 1.0 if motion in ("still", "bounce") else dice.choices([0.5, 1.0, 2.0], [0.2, 0.6, 0.2])[0]
        name = dice.choice(list(words.SHAPES))
        size = dice.choice(["", "small"]) if two else dice.choices(["", "small", "big"], [0.7, 0.15, 0.15])[0]
        if motion == "spin" and name in ("circle", "ring"):
            name = "square"
        if not held_out(name, color, motion, back):
            return make_shape(name, color, motion, size, speed, frame, dice)


def _camera_scene(frame: Frame, dice: random.Random) -> tuple[str, Scene]:
    speed = dice.choices([0.5, 1.0, 2.0], [0.3, 0.5, 0.2])[0]
    moves = [dice.choice(list(words.CAMERA))]
    if moves[0] in ("still", "shake", "sway"):
        speed = 1.0
    elif dice.random() < 0.12:
        other = dice.choice([("in", "out"), ("left", "right"), ("up", "down")])
        if moves[0] not in other and moves[0] not in ("cw", "ccw"):
            moves.append(dice.choice(other))
    text = _say_camera(moves, speed, dice)
    kind = dice.choices(["any", "flat", *KINDS[:5]], [0.6, 0.12, *[0.056] * 5])[0]
    shapes: list[Shape] = []
    if kind == "flat" or dice.random() < 0.15:
        for _ in range(dice.randint(1, 2)):
            name, color = dice.choice(list(words.SHAPES)), dice.choice(list(words.COLORS))
            shapes.append(make_shape(name, color, "still", dice.choice(["", "small", "big"]), 1.0, frame, dice))
    about = dice.random()
    if kind in words.TEXTURES and about < 0.7:
        what = dice.choice(words.TEXTURES[kind])
        text = f"{what}, {text}" if dice.random() < 0.5 else f"{text} over {what}"
    elif about < 0.5:
        noise = _noise_words(1, 9, dice)
        text = f"{noise}, {text}" if dice.random() < 0.7 else f"{text}, {noise}"
    background = color_value(dice.choice(list(words.COLORS)), dice) if kind == "flat" else kind
    return _dress(text, 0.15, dice), Scene(
        background, tuple(shapes), camera=_join([camera_move(m, speed) for m in moves])
    )


def _join(cameras: list[Camera]) -> Camera:
    """Two moves at once; each pair names different parts of the move."""
    joined = cameras[0]
    for other in cameras[1:]:
        joined = replace(joined, vx=joined.vx + other.vx, vy=joined.vy + other.vy, zoom=joined.zoom + other.zoom)
    return joined


def _say_camera(moves: list[str], speed: float, dice: random.Random) -> str:
    if dice.random() < 0.08:
        return words.CHINESE_SPEEDS[speed] + "，".join(dice.choice(words.CHINESE_CAMERA[move]) for move in moves)
    text = " and ".join(dice.choice(words.CAMERA[move]) for move in moves)
    adverb = dice.choice(words.SPEEDS[speed])
    if not adverb:
        return text
    if dice.random() < 0.6 or adverb not in ("slow", "gentle", "fast"):
        return f"{text} {adverb}"
    return f"{adverb} {text}"


def say_shape(shape: Shape, with_color: bool, dice: random.Random) -> str:
    """'a big red ball': the shape in one of its wordings."""
    parts = [dice.choice(words.SHAPES[shape.name])]
    if with_color:
        parts.insert(0, dice.choice(words.COLOR_WORDS.get(shape.color, [shape.color])))
    if shape.size:
        parts.insert(0, dice.choice({"small": ["small", "little"], "big": ["big", "large"]}[shape.size]))
    return dice.choice(["a ", "a ", "the ", ""]) + " ".join(parts)


def say_motion(motion: str, speed: float, dice: random.Random) -> str:
    """'drifts slowly to the left': the motion in one of its wordings."""
    form = 0 if dice.random() < 0.7 else 1
    special = {"up": ["rises", "ascends"], "down": ["falls", "drops", "sinks", "descends"]}.get(motion, [])
    if motion in words.CHANGES:
        text = dice.choice(words.CHANGES[motion])[form]
    elif special and dice.random() < 0.25:
        text = dice.choice(special)
    else:
        ways = motion.split("-")
        way = dice.choice(words.WAYS[ways[0]])
        if len(ways) == 2:
            way = f"{ways[0]} and {dice.choice(words.WAYS[ways[1]])}" if dice.random() < 0.6 else " ".join(ways)
        text = f"{dice.choice(words.VERBS)[form]} {way}"
    adverb = dice.choice([word for word in words.SPEEDS[speed] if word not in ("slow", "gentle")])
    if not adverb:
        return text
    return f"{text} {adverb}" if dice.random() < 0.5 else f"{adverb} {text}"


def say_chinese(shapes: tuple[Shape, ...], back: str, dice: random.Random) -> str:
    """The same scene in Chinese."""
    size = {"": "", "small": "小", "big": "大"}
    said: list[str] = []
    for s in shapes:
        what = f"{size[s.size]}{words.CHINESE_COLORS[s.color]}{dice.choice(['', '的'])}{dice.choice(words.CHINESE_SHAPES[s.name])}"
        said.append(
            f"{dice.choice(['', '一个'])}{what}{words.CHINESE_SPEEDS[s.speed]}{dice.choice(words.CHINESE_MOTIONS[s.motion])}"
        )
    behind = f"{words.CHINESE_COLORS[back]}背景"
    return "，".join([behind, *said] if dice.random() < 0.3 else [*said, behind])


def _noise_words(least: int, most: int, dice: random.Random) -> str:
    return " ".join(_noise_word(dice) for _ in range(dice.randint(least, most)))


def _noise_word(dice: random.Random) -> str:
    chance = dice.random()
    if chance < 0.06:
        return "".join(chr(dice.randint(0x4E00, 0x9FA5)) for _ in range(dice.randint(2, 6)))
    if chance < 0.2:
        return "".join(dice.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(dice.randint(3, 9)))
    return dice.choice(words.FILLER)


def _dress(text: str, chance: float, dice: random.Random) -> str:
    if dice.random() < chance:
        text = f"{dice.choice(words.PREFIX)} {text}"
    if dice.random() < chance:
        text = f"{text}, {dice.choice(words.SUFFIX)}"
    return text


def sample_free_scene(frame: Frame, dice: random.Random) -> Scene:
    """A scene for the autoencoder: half from the grammar, half any camera move with shapes of any colour."""
    if dice.random() < 0.4:
        return sample_scene(frame, dice)[1]
    camera = Camera()
    if dice.random() < 0.75:
        camera = Camera(dice.gauss(0, 1.8), dice.gauss(0, 1.8), dice.gauss(0, 0.012), dice.gauss(0, 0.02))
    shapes: list[Shape] = []
    for _ in range(dice.choice([0, 0, 1, 2])):
        motion = dice.choice([*words.DIRECTIONS, *words.CHANGES])
        name, size = dice.choice(list(words.SHAPES)), dice.choice(["", "small", "big"])
        shape = make_shape(name, "red", motion, size, dice.choice([0.5, 1.0, 2.0]), frame, dice)
        shapes.append(replace(shape, rgb=_any_color(dice)))
    background = _any_color(dice) if dice.random() < 0.1 else "any"
    return Scene(background, tuple(shapes), moving=True, camera=camera)


def _any_color(dice: random.Random) -> Color:
    return dice.uniform(-1, 1), dice.uniform(-1, 1), dice.uniform(-1, 1)
