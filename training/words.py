"""The words of the demo's world: what can be said, and the vocabulary that follows. Knows nothing of pixels."""

from __future__ import annotations

import re

RGB = tuple[int, int, int]

COLORS: dict[str, RGB] = {
    "red": (220, 40, 40), "green": (40, 165, 70), "blue": (40, 80, 220), "yellow": (245, 220, 50),
    "orange": (245, 140, 30), "purple": (140, 60, 190), "pink": (250, 130, 190), "cyan": (60, 210, 225),
    "white": (245, 245, 245), "black": (20, 20, 20), "gray": (128, 128, 128), "brown": (125, 75, 40),
}  # fmt: skip
COLOR_WORDS: dict[str, list[str]] = {
    "red": ["red", "red", "crimson", "scarlet"], "purple": ["purple", "violet"], "gray": ["gray", "grey"],
    "cyan": ["cyan", "turquoise"], "pink": ["pink", "magenta"], "green": ["green", "green", "emerald"],
    "yellow": ["yellow", "yellow", "golden"], "blue": ["blue", "blue", "navy"],
}  # fmt: skip
SHAPES: dict[str, list[str]] = {
    "circle": ["circle", "circle", "ball", "disc", "dot", "sphere"],
    "square": ["square", "square", "box", "block", "cube"],
    "triangle": ["triangle", "triangle", "pyramid"],
    "star": ["star"],
    "ring": ["ring", "donut", "hoop"],
    "diamond": ["diamond", "rhombus"],
    "cross": ["cross", "plus"],
}
TEXTURES: dict[str, list[str]] = {
    "leaves": ["leaves", "a pile of leaves", "a colorful collage", "paper cutouts"],
    "clouds": ["clouds", "smoke", "fog", "a cloudy sky"],
    "gradient": ["a gradient", "a smooth gradient", "a sunset sky"],
    "stripes": ["stripes", "a striped wall"],
    "checkers": ["a checkerboard", "a chess board", "a tiled floor"],
    "scene": ["a scene", "a landscape", "a photo", "a picture", "an image"],
}
WAYS: dict[str, list[str]] = {
    "right": ["right", "to the right", "rightwards", "from left to right", "towards the right"],
    "left": ["left", "to the left", "leftwards", "from right to left", "towards the left"],
    "up": ["up", "upwards", "upward", "to the top", "towards the top"],
    "down": ["down", "downwards", "downward", "to the bottom", "towards the bottom"],
}
DIRECTIONS: dict[str, tuple[int, int]] = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1)}
DIAGONALS = ("up-right", "up-left", "down-right", "down-left")
VERBS: list[tuple[str, str]] = [
    ("moves", "moving"), ("moves", "moving"), ("slides", "sliding"), ("travels", "travelling"), ("goes", "going"),
    ("drifts", "drifting"), ("flies", "flying"), ("glides", "gliding"), ("floats", "floating"), ("rolls", "rolling"),
]  # fmt: skip
#: What a shape does besides moving somewhere: (finite verb, gerund).
CHANGES: dict[str, list[tuple[str, str]]] = {
    "grow": [("grows", "growing"), ("gets bigger", "getting bigger"), ("expands", "expanding"), ("gets larger", "getting larger")],
    "shrink": [("shrinks", "shrinking"), ("gets smaller", "getting smaller"), ("contracts", "contracting")],
    "spin": [("spins", "spinning"), ("rotates", "rotating"), ("turns", "turning"), ("twirls", "twirling")],
    "bounce": [("bounces", "bouncing"), ("jumps up and down", "jumping up and down"), ("hops", "hopping")],
    "still": [("stays still", "staying still"), ("stands still", "standing still"), ("does not move", "not moving"), ("rests", "resting")],
}  # fmt: skip
#: What the camera does. 'The image slides' names the content's own direction, which is the opposite one.
CAMERA: dict[str, list[str]] = {
    "left": [
        "the camera pans left", "camera pans left", "pan left", "camera pans to the left", "the camera moves left",
        "panning left", "the view pans to the left", "the image slides right", "the picture moves to the right",
    ],
    "right": [
        "the camera pans right", "camera pans right", "pan right", "camera pans to the right", "the camera moves right",
        "panning right", "the view pans to the right", "the image slides left", "the picture moves to the left",
    ],
    "up": [
        "the camera tilts up", "camera tilts up", "tilt up", "the camera pans up", "pan up", "the camera moves up",
        "the view tilts upwards", "the image slides down",
    ],
    "down": [
        "the camera tilts down", "camera tilts down", "tilt down", "the camera pans down", "pan down",
        "the camera moves down", "the view tilts downwards", "the image slides up",
    ],
    "in": [
        "the camera zooms in", "zoom in", "zooming in", "push in", "the camera pushes in", "dolly in",
        "the camera moves closer", "the camera moves forward", "a push in", "zoom towards the center",
    ],
    "out": [
        "the camera zooms out", "zoom out", "zooming out", "pull back", "the camera pulls back", "pull out",
        "dolly out", "the camera moves away", "the camera moves backward",
    ],
    "cw": [
        "the image rotates clockwise", "rotates clockwise", "the image rotates", "the camera rolls",
        "the picture turns clockwise", "rotate",
    ],
    "ccw": [
        "the image rotates counterclockwise", "rotates counterclockwise", "the picture turns counterclockwise",
        "the image rotates anticlockwise",
    ],
    "still": [
        "a static shot", "the camera does not move", "static camera", "a still image", "no motion",
        "the camera stays still", "locked off shot",
    ],
    "shake": ["handheld camera", "the camera shakes", "shaky handheld footage", "the image trembles"],
    "sway": [
        "the image comes to life with subtle movement", "gentle motion", "the scene gently animates", "subtle motion",
        "gentle sway", "soft breathing motion",
    ],
}  # fmt: skip
SPEEDS: dict[float, list[str]] = {
    0.5: ["slowly", "slow", "gently", "gentle", "softly"],
    1.0: [""],
    2.0: ["fast", "quickly", "rapidly"],
}
PREFIX = [
    "a video of", "an animation of", "cinematic shot,", "high quality,", "footage of", "a clip of", "realistic,",
    "a beautiful video,",
]  # fmt: skip
SUFFIX = [
    "high quality", "4k", "smooth motion", "best quality", "cinematic", "detailed", "natural light", "masterpiece",
    "realistic",
]  # fmt: skip
#: Words without a meaning here, so that the model learns to pass over what it does not know.
_FILLER = """
cat dog horse bird woman man child person people face hand hair eyes house tree forest mountain river lake
ocean beach sand road street city car train boat bridge window door table chair kitchen room floor wall roof garden
flower grass field hill rock stone snow rain storm light shadow night day morning evening winter summer spring autumn
fire water glass metal wood paper book cup coffee bread fruit apple cake food market shop tower castle church temple
park sea island desert rocket moon planet space robot machine astronaut portrait background foreground texture pattern
surface detail close wide shot view scene old young small tiny huge tall long short dark bright warm cold soft hard
quiet busy empty happy sad calm wild ancient modern vintage colorful pale deep shiny wet dry sunny cloudy foggy misty
golden wooden sitting standing walking running looking smiling talking reading eating holding wearing playing sleeping
waiting drinking cooking singing dancing shirt dress hat coat shoes glasses jacket blanket lamp candle mirror guitar
piano phone camera computer screen bottle basket ladder fence path gate tunnel station airport harbor village farm barn
the and with of in on at by near under behind beside for from into some two three many several very quite its his her
their this that was is are be has have while as then there where style photo film realistic cinematic atmospheric
dramatic beautiful lovely strange
"""
FILLER = _FILLER.split()
NEGATIVE = [
    "", "", "", "low quality", "blurry, low quality", "worst quality, low quality, blurry, distorted",
    "bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, overall gray, "
    "worst quality, low quality, ugly, incomplete",
    "static, blurry, deformed, disfigured, extra fingers, poorly drawn hands, messy background",
    "色调艳丽，过曝，静态，细节模糊不清，字幕", "ugly, watermark, text, jpeg artifacts, bad anatomy",
    "distorted, static image, noise",
]  # fmt: skip

CHINESE_COLORS = {
    "red": "红色", "green": "绿色", "blue": "蓝色", "yellow": "黄色", "orange": "橙色", "purple": "紫色",
    "pink": "粉色", "cyan": "青色", "white": "白色", "black": "黑色", "gray": "灰色", "brown": "棕色",
}  # fmt: skip
CHINESE_SHAPES = {
    "circle": ["圆形", "球"], "square": ["正方形", "方块"], "triangle": ["三角形"], "star": ["星星"],
    "ring": ["圆环"], "diamond": ["菱形"], "cross": ["十字"],
}  # fmt: skip
CHINESE_MOTIONS = {
    "right": ["向右移动"], "left": ["向左移动"], "up": ["向上移动"], "down": ["向下移动"],
    "up-right": ["向右上移动"], "up-left": ["向左上移动"], "down-right": ["向右下移动"], "down-left": ["向左下移动"],
    "grow": ["变大"], "shrink": ["变小"], "spin": ["旋转"], "bounce": ["跳动"], "still": ["静止不动"],
}  # fmt: skip
CHINESE_CAMERA = {
    "left": ["镜头向左移动", "镜头向左平移"], "right": ["镜头向右移动", "镜头向右平移"], "up": ["镜头向上移动"],
    "down": ["镜头向下移动"], "in": ["镜头推近", "放大"], "out": ["镜头拉远", "缩小"], "cw": ["画面顺时针旋转"],
    "ccw": ["画面逆时针旋转"], "still": ["固定镜头", "镜头静止不动"], "shake": ["手持镜头", "画面抖动"],
    "sway": ["画面轻微晃动"],
}  # fmt: skip
CHINESE_SPEEDS = {0.5: "缓慢", 1.0: "", 2.0: "快速"}
#: How Chinese text is cut into pieces; anything else becomes <unk>.
_CHINESE_LINKS = """
一个 的 在 上 大 小 背景 向右 向左 向上 向下 右上 左上 右下 左下 向 移动 平移 变大 变小 旋转 跳动 静止不动 镜头 推近 放大 拉远 缩小
画面 顺时针 逆时针 固定 手持 抖动 轻微 晃动 缓慢 快速
"""
CHINESE_PIECES = (*CHINESE_COLORS.values(), *sum(CHINESE_SHAPES.values(), []), *_CHINESE_LINKS.split())


def vocabulary() -> list[str]:
    """Every Latin word a prompt of this world can have, lower case, sorted."""
    phrases: list[str] = [*FILLER, *COLORS, *PREFIX, *SUFFIX, *NEGATIVE]
    for group in (CAMERA, TEXTURES, COLOR_WORDS, SHAPES, WAYS):
        phrases += [phrase for options in group.values() for phrase in options]
    phrases += [word for words in SPEEDS.values() for word in words]
    phrases += [word for pair in VERBS for word in pair]
    phrases += [word for changes in CHANGES.values() for pair in changes for word in pair]
    phrases.append("rises ascends falls drops sinks descends small little big large a an the and while over on against")
    phrases.append("background backdrop move slide camera zoom it")
    found = {word for phrase in phrases for word in re.findall(r"[a-z0-9]+", phrase.lower())}
    return sorted(word for word in found if len(word) > 1 or word == "a")
