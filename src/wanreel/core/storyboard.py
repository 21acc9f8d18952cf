"""Storyboard: scenes that become one video. The file's fields are declared here once; knows nothing of jobs or pictures' bytes.

Everything a scene does not say for itself may stand beside `scenes` and then counts for all of them. What is no field of
a storyboard or a scene is a knob of `VideoRequest`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, cast, get_args

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.finishing import FINISHING_KNOBS
from wanreel.core.picture import PictureRef
from wanreel.core.request import KNOBS, VideoRequest

Start = Literal["previous", "keyframe", "anchor", "text"]
Transition = Literal["cut", "crossfade"]

MAX_SCENES = 60
MAX_FADE = 64  #: frames of a cross-fade
FADE = 8  #: frames of a cross-fade that does not say

#: Knobs that scenes can't have: each other's sizes and rates must be equal, and pictures have fields of their own.
NOT_ANYWHERE = (
    *("prompt", "original_prompt", "image", "last_image"),
    *(name for name in FINISHING_KNOBS if name not in ("upscale", "upscaler")),
)
NOT_IN_SCENES = (
    *("width", "height", "resolution", "fps", "output_format", "quality", "metadata", "storage"),
    *("upscale", "upscaler"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """One scene, as asked."""

    prompt: str = field(metadata={"help": "What happens in it.", "aliases": ("motion_prompt",)})
    name: str = field(default="", metadata={"help": "What it is called on the page and in messages."})
    start: Start | None = field(
        default=None,
        metadata={
            "help": "What it starts from: the previous scene's last frame (as it does without a keyframe), its keyframe, "
            "the anchor (the first scene's keyframe), or its text alone."
        },
    )
    keyframe: PictureRef | None = field(
        default=None, metadata={"help": "A picture that it starts from.", "aliases": ("image", "image_base64")}
    )
    end_keyframe: PictureRef | None = field(
        default=None,
        metadata={"help": "A picture that it ends on, for models that take one.", "aliases": ("last_image",)},
    )
    transition: Transition | None = field(
        default=None,
        metadata={
            "help": "How it follows the scene before: cut, or crossfade. A cross-fade to a scene that continues the one "
            "before is an overlap: it starts so many frames before that one's end."
        },
    )
    transition_frames: int | None = field(
        default=None, metadata={"help": f"Frames of a cross-fade; {FADE} by default."}
    )
    knobs: Mapping[str, object] = field(default_factory=dict[str, object])  #: of its own, as given

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values, without what was not asked."""
        values: dict[str, object] = {}
        for name in SCENE_FIELDS:
            value = getattr(self, name)
            if value not in (None, ""):
                values[name] = value.to_dict() if isinstance(value, PictureRef) else value
        return values | dict(self.knobs)

    def evolve(self, **changes: Any) -> Scene:
        return replace(self, **changes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Storyboard:
    """A storyboard, as asked. Its scenes are in order."""

    scenes: tuple[Scene, ...]
    title: str = field(default="", metadata={"help": "What the whole is called."})
    colour_match: float = field(
        default=0.0,
        metadata={
            "help": "0 to 1: how far a scene that continues another is brought back to the colours of the first one."
        },
    )
    transition: Transition = field(default="cut", metadata={"help": "Of every scene that does not say."})
    transition_frames: int = field(default=FADE, metadata={"help": "Of every cross-fade that does not say."})
    knobs: Mapping[str, object] = field(default_factory=dict[str, object])  #: of every scene, as given

    def to_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        own = {name: getattr(self, name) for name in BOARD_FIELDS}
        return {**own, **self.knobs, "scenes": [scene.to_dict() for scene in self.scenes]}

    def start(self, place: int) -> Start:
        """What a scene starts from."""
        scene = self.scenes[place]
        if scene.start is not None:
            return scene.start
        return "keyframe" if scene.keyframe is not None else "previous" if place else "text"

    def fade(self, place: int) -> int:
        """Over how many frames a scene is blended with the end of the one before; 0 for none."""
        scene = self.scenes[place]
        if not place or (scene.transition or self.transition) == "cut":
            return 0
        return self.transition_frames if scene.transition_frames is None else scene.transition_frames

    def root(self, place: int) -> int:
        """The scene that begins the run of continuing ones that this one is in."""
        while place and self.start(place) == "previous" and not self.edited(place):
            place -= 1
        return place

    def edited(self, place: int) -> bool:
        """Whether the picture that a scene starts from is changed first, so that it is no longer another's last frame."""
        return bool(self.values(place).get("edit_prompt"))

    def values(self, place: int) -> dict[str, object]:
        """The knobs of a scene, those of all scenes among them, without its pictures."""
        scene = self.scenes[place]
        replaced = {name for one, name in _INSTEAD if one in scene.knobs}
        shared = {name: value for name, value in self.knobs.items() if name not in replaced}
        return {**shared, **scene.knobs, "prompt": scene.prompt}


#: A scene's knob, and the one of all scenes that it takes the place of.
_INSTEAD = (
    ("seconds", "num_frames"),
    ("num_frames", "seconds"),
    ("preset", "num_inference_steps"),
    ("guidance_scale", "guidance_high"),
    ("guidance_scale", "guidance_low"),
)
_KNOB_OF = {alias: name for name, knob in KNOBS.items() for alias in knob.aliases}

#: Fields by name; what else stands in a scene or storyboard is a knob.
SCENE_FIELDS = tuple(item.name for item in fields(Scene) if item.name != "knobs")
BOARD_FIELDS = tuple(item.name for item in fields(Storyboard) if item.name not in ("knobs", "scenes"))
_PICTURES = ("keyframe", "end_keyframe")
_ALIASES = {alias: item.name for item in fields(Scene) for alias in item.metadata.get("aliases", ())}

#: Turns what stands for a picture into one that is kept; the second word is the field. Raises InvalidRequest.
Take = Callable[[object, str], PictureRef]


def kept_picture(value: object, name: str) -> PictureRef:
    """As `Take`, for storyboards that were kept: pictures are references already."""
    if isinstance(value, PictureRef):
        return value
    if isinstance(value, Mapping):
        return PictureRef.from_dict(cast("Mapping[str, object]", value))
    raise InvalidRequest.of(name, "wrong_type", "a picture was expected.")


def parse_storyboard(
    values: object, take: Take = kept_picture, lines: Mapping[tuple[str | int, ...], int] | None = None
) -> Storyboard:
    """A storyboard from loose values. Raises InvalidRequest naming every problem by scene, field and line at once.

    `lines` are the lines of a file by path ("scenes", 2, "seconds"), where it came from one. Models are not looked at.
    """
    return _Reader(take, lines or {}).board(values)


class _Reader:
    """One storyboard being read; collects problems."""

    def __init__(self, take: Take, lines: Mapping[tuple[str | int, ...], int]) -> None:
        self._take = take
        self._lines = lines
        self._problems: list[Problem] = []

    def board(self, values: object) -> Storyboard:
        given = self._mapping(values, ())
        if self._problems:
            raise InvalidRequest(*self._problems)
        scenes = given.pop("scenes", None)
        if not isinstance(scenes, Sequence) or isinstance(scenes, str) or not scenes:
            self._wrong(("scenes",), "required", "a storyboard is a list of scenes, at least one.")
            scenes = []
        elif len(cast("Sequence[object]", scenes)) > MAX_SCENES:
            self._wrong(
                ("scenes",), "too_many", f"{len(cast('Sequence[object]', scenes))} scenes; at most {MAX_SCENES}."
            )
            scenes = []
        own = {name: given.pop(name) for name in BOARD_FIELDS if given.get(name) is not None}
        given = self._by_knob(given, ())
        self._knobs(given, (), BOARD_FIELDS, NOT_ANYWHERE)
        self._own(own)
        read = tuple(self._scene(scene, n, given) for n, scene in enumerate(cast("Sequence[object]", scenes)))
        if self._problems:
            raise InvalidRequest(*self._problems)
        facts: dict[str, Any] = dict(own)
        board = Storyboard(scenes=read, knobs=given, **facts)
        self._starts(board)
        if self._problems:
            raise InvalidRequest(*self._problems)
        return board

    def _own(self, own: Mapping[str, object]) -> None:
        for name in own:
            self._field(own, name, ())
        match = own.get("colour_match", 0.0)
        if isinstance(match, bool) or not isinstance(match, int | float) or not 0 <= match <= 1:
            self._wrong(("colour_match",), "out_of_range", f"{match!r} is not within 0 to 1.")

    def _scene(self, value: object, number: int, shared: Mapping[str, object]) -> Scene:
        at: tuple[str | int, ...] = ("scenes", number)
        given = self._mapping(value, at)
        if not isinstance(value, Mapping):
            return Scene(prompt="")
        for alias, name in _ALIASES.items():
            if alias in given and given.setdefault(name, given[alias]) is not given.pop(alias):
                self._wrong((*at, name), "contradiction", f"was given twice, as {alias} too.")
        own = {name: given.pop(name) for name in SCENE_FIELDS if name in given}
        given = self._by_knob(given, at)
        for name in own:
            self._field(own, name, at)
        for name in _PICTURES:
            if name in own:
                own[name] = self._picture(own[name], (*at, name))
        prompt = own.get("prompt")
        if isinstance(prompt, str) and not prompt.strip():
            self._wrong((*at, "prompt"), "required", "is empty.")
        elif prompt is None:
            self._wrong((*at, "prompt"), "required", "is missing: say what happens in the scene.")
        self._knobs(given, at, SCENE_FIELDS, (*NOT_ANYWHERE, *NOT_IN_SCENES), shared)
        values: dict[str, Any] = {"prompt": "", **own}
        return Scene(knobs=given, **values)

    def _by_knob(self, given: Mapping[str, object], at: tuple[str | int, ...]) -> dict[str, object]:
        """Aliases of knobs by the knobs' own names, so that a scene's takes the place of that of all scenes."""
        named: dict[str, object] = {}
        for name, value in given.items():
            knob = _KNOB_OF.get(name, name)
            if named.setdefault(knob, value) != value:
                self._wrong((*at, knob), "contradiction", f"was given twice, as {name} too.")
        return named

    def _field(self, own: Mapping[str, object], name: str, at: tuple[str | int, ...]) -> None:
        """What is wrong with a field that is no picture and no number of its own kind."""
        value, choices = own[name], {"start": get_args(Start), "transition": get_args(Transition)}.get(name)
        if choices is not None and value not in choices:
            self._wrong((*at, name), "unknown_value", f"{value!r} is not offered.", f"Choose {' | '.join(choices)}.")
        elif name == "transition_frames":
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_FADE:
                self._wrong((*at, name), "out_of_range", f"{value!r} is not within 1 to {MAX_FADE} frames.")
        elif name in ("prompt", "name", "title"):
            if not isinstance(value, str):
                self._wrong((*at, name), "wrong_type", f"{value!r} is not text.")
            elif len(value) > (longest := 4000 if name == "prompt" else 200):
                self._wrong((*at, name), "too_long", f"has {len(value)} characters; at most {longest} are read.")

    def _picture(self, value: object, at: tuple[str | int, ...]) -> PictureRef | None:
        try:
            return self._take(value, _named(at))
        except InvalidRequest as error:
            for problem in error.problems:
                self._wrong(at, problem.code, problem.message, problem.hint)
        except (KeyError, TypeError, ValueError):
            self._wrong(at, "wrong_type", "a picture was expected.")
        return None

    def _knobs(
        self,
        given: Mapping[str, object],
        at: tuple[str | int, ...],
        known: tuple[str, ...],
        refused: tuple[str, ...],
        shared: Mapping[str, object] | None = None,
    ) -> None:
        """What is wrong with the knobs by themselves; those of all scenes count too, as they may contradict."""
        for name in given:
            if name in refused:
                where = "for all scenes, not in one" if name in NOT_IN_SCENES else "in a storyboard"
                hint = "Put it beside scenes." if name in NOT_IN_SCENES else "Leave it out."
                self._wrong((*at, name), "unsupported", f"can't be set {where}.", hint)
            elif name not in KNOBS:
                near = get_close_matches(name, [*known, *KNOBS], n=1)
                hint = f"Did you mean {near[0]}?" if near else ""
                self._wrong((*at, name), "unknown_field", "there is no such field or knob.", hint)
        if any(problem.field.startswith(_named(at)) for problem in self._problems if at) or (not at and self._problems):
            return
        try:
            problems = VideoRequest.from_mapping({"prompt": "-", **(shared or {}), **given}).problems()
        except InvalidRequest as error:
            problems = list(error.problems)
        for problem in problems:
            if not at or problem.field in given or problem.field not in (shared or {}):
                self._wrong((*at, problem.field), problem.code, problem.message, problem.hint)

    def _starts(self, board: Storyboard) -> None:
        for place, scene in enumerate(board.scenes):
            at, start = ("scenes", place, "start"), board.start(place)
            if start == "previous" and not place:
                self._wrong(at, "contradiction", "there is no scene before the first one.")
            elif start == "keyframe" and scene.keyframe is None:
                self._wrong(at, "required", "it has no keyframe.")
            elif start == "anchor" and board.scenes[0].keyframe is None:
                self._wrong(at, "required", "the first scene has no keyframe to go back to.")
            elif start != "keyframe" and scene.keyframe is not None:
                self._wrong(at, "contradiction", f"it has a keyframe and starts from {start}.")
            if board.edited(place) and start == "text":
                text = "there is no picture to edit: the scene starts from its text alone."
                self._wrong(("scenes", place, "edit_prompt"), "contradiction", text)

    def _mapping(self, value: object, at: tuple[str | int, ...]) -> dict[str, object]:
        if not isinstance(value, Mapping):
            what = "a storyboard is an object with scenes." if not at else "a scene is an object with a prompt."
            self._wrong(at or ("scenes",), "wrong_type", what)
            return {}
        return {str(name): item for name, item in cast("Mapping[object, object]", value).items() if item is not None}

    def _wrong(self, at: tuple[str | int, ...], code: str, message: str, hint: str = "") -> None:
        path = at
        while path and path not in self._lines:
            path = path[:-1]
        where = f"line {self._lines[path]}: " if path in self._lines else ""
        self._problems.append(Problem(_named(at), code, where + message, hint))


def _named(at: Sequence[str | int]) -> str:
    """scenes[2].seconds, counted from 1 as people do."""
    text = ""
    for part in at:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text
