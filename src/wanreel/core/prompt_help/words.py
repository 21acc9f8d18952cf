"""The vocabulary of prompt help, as data: what each phrase means, which meanings exclude each other, what may be added.

English phrases match whole words in any case, hyphens as spaces; Chinese ones match anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

Language = Literal["en", "zh"]

_HAN = re.compile(r"[\u3400-\u9fff]")


@dataclass(frozen=True)
class Concept:
    """One meaning on one axis, and the phrases that say it."""

    axis: str
    value: str
    phrases: tuple[str, ...]
    _pattern: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        found = "|".join(_regex(phrase) for phrase in sorted(self.phrases, key=len, reverse=True))
        object.__setattr__(self, "_pattern", re.compile(found, re.IGNORECASE))

    def spans(self, text: str) -> Iterator[tuple[int, int]]:
        """Wherever the text says it."""
        for match in self._pattern.finditer(text):
            yield match.span()


def _regex(phrase: str) -> str:
    if _HAN.search(phrase):
        return re.escape(phrase)
    return r"(?<!\w)" + r"[\s-]+".join(re.escape(word) for word in phrase.split()) + r"(?!\w)"


def _rows(axis: str, rows: Mapping[str, str]) -> Iterator[Concept]:
    for value, phrases in rows.items():
        yield Concept(axis, value, tuple(phrase.strip() for phrase in phrases.split("|")))


_MOVE = {
    "static": "static camera|static shot|still camera|fixed camera|fixed shot|locked off shot|locked camera|tripod shot"
    "|camera stays still|the camera stays still|camera is static|camera does not move|no camera movement"
    "|固定镜头|静止镜头|镜头固定|镜头静止|镜头保持不动",
    "pan left": "pan left|pans left|camera pans left|panning left|camera moves left|向左平移|镜头左移|镜头向左|左摇",
    "pan right": "pan right|pans right|camera pans right|panning right|camera moves right|向右平移|镜头右移|镜头向右|右摇",
    "tilt up": "tilt up|tilts up|tilting up|camera tilts up|镜头上摇|镜头向上|上摇",
    "tilt down": "tilt down|tilts down|tilting down|camera tilts down|镜头下摇|镜头向下|下摇",
    "push in": "push in|pushes in|slowly pushes in|dolly in|zoom in|zooms in|zooming in|camera moves forward"
    "|推镜头|镜头推进|镜头拉近|推近|缓缓推进",
    "pull out": "pull out|pulls out|pulls back|pull back|dolly out|zoom out|zooms out|zooming out|camera moves backward"
    "|拉镜头|镜头拉远|镜头后退|拉远",
    "orbit": "orbit|orbits|orbiting|orbit shot|arc shot|circles around|360 degree shot|环绕镜头|镜头环绕|环绕拍摄",
    "follow": "tracking shot|follow shot|following shot|camera follows|the camera follows|camera tracks"
    "|the camera follows slowly|跟随镜头|镜头跟随|跟拍|镜头平稳跟随",
    "handheld": "handheld|hand held camera|shaky camera|handheld camera|手持镜头|手持拍摄",
    "crane": "crane shot|jib shot|升降镜头",
    "drone": "drone shot|drone footage|fpv|flyover|fly through|航拍|无人机",
}
_SHOT = {
    "extreme close-up": "extreme close up|macro shot|macro|大特写|微距",
    "close-up": "close up|close up shot|closeup|特写|近景",
    "medium shot": "medium shot|mid shot|medium close up|waist shot|中景|中近景",
    "wide shot": "wide shot|wide angle shot|long shot|full shot|establishing shot|wide angle|远景|全景|广角",
    "aerial": "aerial shot|aerial view|bird s eye view|bird's eye view|top down view|overhead shot|俯瞰|鸟瞰|俯拍",
    "over the shoulder": "over the shoulder|over the shoulder shot|过肩镜头",
    "low angle": "low angle|low angle shot|worm's eye view|低角度|仰拍",
    "high angle": "high angle|high angle shot|高角度",
    "eye level": "eye level|eye level shot|平视",
}
_TIME = {
    "day": "daytime|midday|noon|at noon|broad daylight|in daylight|daylight|bright day|白天|正午|中午|日光",
    "night": "at night|night time|nighttime|midnight|night scene|moonlit|moonlight|by night|夜晚|夜间|深夜|午夜|月光",
    "sunset": "sunset|golden hour|dusk|at dusk|evening light|late afternoon sun|日落|黄昏|傍晚|黄金时刻",
    "dawn": "sunrise|dawn|at dawn|morning light|early morning|日出|黎明|清晨|晨光",
}
_LIGHT = {
    "soft": "soft light|soft lighting|soft natural light|soft window light|diffused light|gentle light|overcast light"
    "|柔光|柔和的光线|柔和的自然光|漫射光",
    "hard": "hard light|hard lighting|harsh light|harsh lighting|harsh sunlight|硬光|强光",
    "backlit": "backlit|backlight|back light|backlighting|rim light|rim lighting|逆光|轮廓光|背光",
    "natural": "natural light|natural lighting|sunlight|sunlit|window light|自然光|阳光",
    "neon": "neon|neon light|neon lights|neon lighting|霓虹|霓虹灯",
    "studio": "studio light|studio lighting|softbox|three point lighting|影棚灯光|摄影棚",
    "cinematic light": "cinematic lighting|cinematic light|dramatic lighting|dramatic light|moody lighting|volumetric lighting"
    "|volumetric light|god rays|电影光效|电影感光线|戏剧性光线|体积光",
    "low key": "low key|low key lighting|chiaroscuro|candlelight|candlelit|firelight|低调光|烛光|火光",
    "high key": "high key|high key lighting|bright lighting|高调光",
    "lamp": "lamplight|street light|street lights|streetlights|lantern light|路灯|灯光",
}
_STYLE = {
    "photographic": "photographic|photorealistic|photo realistic|realistic|hyperrealistic|photography|photo|live action"
    "|documentary footage|documentary style|写实|真实感|照片级|摄影作品|纪实|实拍",
    "anime": "anime|anime style|manga|japanese animation|studio ghibli style|动漫|日漫|动画风格|二次元|漫画风格",
    "cartoon": "cartoon|cartoon style|comic|comic book style|卡通",
    "3d": "3d animation|3d render|3d rendered|3d style|cgi|unreal engine|octane render|pixar style|三维动画|3D动画|三维渲染",
    "watercolour": "watercolour|watercolor|watercolour painting|watercolor painting|水彩",
    "oil painting": "oil painting|oil paint|impressionist painting|油画",
    "ink": "ink wash|ink wash painting|sumi e|chinese ink painting|水墨|水墨画|国画",
    "pixel art": "pixel art|8 bit|16 bit|像素风|像素画",
    "sketch": "pencil sketch|sketch|line drawing|charcoal drawing|素描|线稿",
    "clay": "claymation|stop motion|clay animation|felt|定格动画|黏土",
    "low poly": "low poly|voxel|低多边形",
}
_LOOK = {
    "cinematic": "cinematic|film look|movie scene|movie still|35 mm film|35mm film|anamorphic|电影感|电影质感|电影画面",
    "film noir": "film noir|noir|黑色电影",
    "vintage": "vintage|retro|super 8|vhs|old film|复古|怀旧|胶片",
    "cyberpunk": "cyberpunk|synthwave|赛博朋克",
    "fantasy": "fantasy|magical|dreamlike|dreamy|ethereal|奇幻|梦幻|空灵",
    "surreal": "surreal|surrealist|surrealism|超现实",
    "minimalist": "minimalist|minimalism|minimal style|极简",
    "documentary": "documentary|纪录片",
    "gothic": "gothic|dark fantasy|哥特",
    "steampunk": "steampunk|蒸汽朋克",
}
_COLOUR = {
    "monochrome": "black and white|monochrome|monochromatic|greyscale|grayscale|黑白",
    "vivid": "vibrant colours|vibrant colors|vivid colours|vivid colors|colourful|colorful|saturated colours|saturated colors"
    "|rich colours|rich colors|色彩鲜艳|色彩丰富|鲜艳的色彩",
    "muted": "muted colours|muted colors|desaturated|pastel colours|pastel colors|柔和的色彩|低饱和度",
}
_SPEED = {
    "slow motion": "slow motion|slow mo|slowmo|慢动作|慢镜头",
    "time-lapse": "time lapse|timelapse|hyperlapse|fast motion|sped up|延时摄影|快动作|快进",
}
_FOCUS = {
    "sharp": "sharp focus|in sharp focus|sharp|crisp|tack sharp|清晰|画面清晰|锐利",
    "blurred": "blurry|blurred|out of focus|unfocused|模糊|失焦",
}
_QUALITY = {
    "quality": "high quality|best quality|top quality|highest quality|masterpiece|award winning|professional quality"
    "|高质量|最佳质量|高品质|杰作",
    "detail": "highly detailed|ultra detailed|extremely detailed|intricate details|fine detail|fine details|rich detail"
    "|rich details|detailed|细节丰富|丰富的细节|高细节|精细",
    "resolution": "4k|8k|uhd|hd|full hd|ultra hd|hdr|high resolution|high definition|超高清|高清|高分辨率",
}
_MOTION = {
    "natural": "natural motion|smooth motion|natural movement|smooth movement|natural, smooth motion|fluid motion"
    "|realistic motion|动作自然|动作流畅|自然流畅",
    "subtle": "subtle motion|minimal motion|subtle movement|gentle motion|barely moving|subtle breathing|轻微的动作|动作轻微",
    "strong": "dynamic motion|dynamic movement|fast movement|intense motion|剧烈运动|动感",
}
_LENS = {
    "shallow": "shallow depth of field|bokeh|blurred background|浅景深|虚化|背景虚化",
    "deep": "deep focus|deep depth of field|everything in focus|深景深",
}

CONCEPTS: tuple[Concept, ...] = tuple(
    concept
    for axis, rows in (
        ("camera", _MOVE),
        ("shot", _SHOT),
        ("time", _TIME),
        ("light", _LIGHT),
        ("style", _STYLE),
        ("look", _LOOK),
        ("colour", _COLOUR),
        ("speed", _SPEED),
        ("focus", _FOCUS),
        ("quality", _QUALITY),
        ("motion", _MOTION),
        ("lens", _LENS),
    )
    for concept in _rows(axis, rows)
)

#: Axes of which a text can mean one value only.
EXCLUSIVE = frozenset({"shot", "time", "style", "colour", "speed", "focus", "lens", "motion"})
#: Pairs of the other axes that exclude each other; a camera that stands still moves in no way.
CLASHES: frozenset[frozenset[str]] = frozenset(
    frozenset(pair)
    for pair in (
        ("pan left", "pan right"),
        ("tilt up", "tilt down"),
        ("push in", "pull out"),
        ("soft", "hard"),
        ("low key", "high key"),
        *(("static", move) for move in _MOVE if move != "static"),
    )
)
#: Values of exclusive axes that go together all the same: an angle and a distance.
TOGETHER: frozenset[frozenset[str]] = frozenset(
    frozenset((angle, other))
    for angle in ("low angle", "high angle", "eye level", "over the shoulder", "aerial")
    for other in _SHOT
) | frozenset({frozenset(("anime", "cartoon")), frozenset(("3d", "cartoon")), frozenset(("3d", "anime"))})


def clash(one: Concept, other: Concept) -> bool:
    """Whether no video can be both."""
    if one.axis != other.axis or one.value == other.value:
        return False
    pair = frozenset((one.value, other.value))
    return pair in CLASHES or (one.axis in EXCLUSIVE and pair not in TOGETHER)


@dataclass(frozen=True, slots=True)
class Said:
    """A concept and where a text says it."""

    concept: Concept
    start: int
    end: int


_BY_PHRASE: Mapping[str, Concept] = {
    " ".join(phrase.casefold().split()): concept for concept in CONCEPTS for phrase in concept.phrases
}
#: The longest phrase first, so that "blurred background" is no blur.
_EVERY = re.compile("|".join(_regex(phrase) for phrase in sorted(_BY_PHRASE, key=len, reverse=True)), re.IGNORECASE)


def said(text: str) -> list[Said]:
    """Every concept of the text, in the order said; of phrases within each other the longest."""
    found = [(match, " ".join(re.split(r"[\s-]+", match.group().casefold()))) for match in _EVERY.finditer(text)]
    return [Said(_BY_PHRASE[words], *match.span()) for match, words in found]


#: What a video-editing model of the VACE kind is asked for, by the kind of control.
VACE: tuple[Concept, ...] = tuple(
    _rows(
        "vace",
        {
            "reference": "reference image|reference images|subject reference|same character as|参考图|参考图像|主体参考",
            "inpainting": "inpaint|inpainting|masked area|fill the mask|replace the object|局部重绘|遮罩|蒙版",
            "outpainting": "outpaint|outpainting|expand the frame|extend the canvas|扩图|画面扩展|外扩",
            "depth": "depth map|depth control|深度图",
            "pose": "pose control|openpose|skeleton pose|pose sequence|motion transfer|姿态控制|骨骼|动作迁移",
            "edges": "scribble|canny|edge map|line art control|线稿控制|边缘图",
            "flow": "optical flow|光流",
            "colourising": "colorize|colourise|colorise|colourize|上色",
            "video to video": "video to video|restyle the video|style transfer|视频转视频|风格迁移",
            "extension": "extend the video|continue the video|延长视频|视频延长",
        },
    )
)


@dataclass(frozen=True, slots=True)
class Addition:
    """A phrase that is added where the text says nothing on its axes."""

    axes: tuple[str, ...]
    en: str
    zh: str
    cinematic: bool = False  #: only where the cinematic vocabulary is wanted
    styles: tuple[str, ...] = ()  #: only in these styles; "" is no style named; empty: in all

    def text(self, language: Language) -> str:
        return self.zh if language == "zh" else self.en


_LIVE = ("", "photographic")
_DRAWN = ("anime", "cartoon", "watercolour", "oil painting", "ink", "sketch")

#: For text to video, in the order of weight.
FROM_TEXT: tuple[Addition, ...] = (
    Addition(("shot",), "medium shot", "中景"),
    Addition(("camera",), "the camera follows slowly", "镜头平稳跟随"),
    Addition(("light", "time"), "soft natural light", "柔和的自然光"),
    Addition(("look", "style"), "cinematic", "电影感", cinematic=True, styles=("",)),
    Addition(("style", "look"), "photographic", "写实", styles=("",)),
    Addition(("lens",), "shallow depth of field", "浅景深", cinematic=True, styles=_LIVE),
    Addition(("colour",), "rich colours", "色彩丰富", styles=_DRAWN),
    Addition(("motion", "speed"), "natural motion", "动作自然"),
    Addition(("focus",), "sharp focus", "画面清晰", styles=_LIVE),
    Addition(("quality",), "fine detail", "细节丰富"),
)
#: For a picture that is set in motion: it shows already who, where and in what style.
FROM_PICTURE: tuple[Addition, ...] = (
    Addition(("motion", "speed"), "natural motion", "动作自然"),
    Addition(("camera",), "the camera stays still", "镜头保持不动"),
)
