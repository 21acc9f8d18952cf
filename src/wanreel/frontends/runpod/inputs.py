"""From a RunPod job's input to what is asked. Knows nothing of models, of RunPod's SDK or of how anything is made.

The names and defaults are those of the clients that exist: a picture is needed unless `mode` says otherwise, a video has
81 frames at 16 frames/s and the area of 480P. Whatever else is left out is as the model's authors do it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, cast

from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.picture import PictureRef
from wanreel.core.picture_request import PictureRequest
from wanreel.core.request import VideoRequest
from wanreel.core.sound import SoundRef
from wanreel.frontends.picture_text import Fetch, picture_bytes

Kind = Literal["video", "image", "storyboard", "warmup"]
Take = Callable[[bytes, str], PictureRef]  #: checks bytes and keeps them; raises UnreadablePicture naming the knob
Hear = Callable[[bytes, str], SoundRef]  #: the same for a sound

R = TypeVar("R", VideoRequest, PictureRequest)

NUM_FRAMES = 81
FPS = 16.0
#: What takes a picture, and of which knob.
PICTURES: Mapping[str, str] = {
    "image_base64": "image",
    "image_url": "image",
    "image": "image",
    "init_image": "image",
    "last_image_base64": "last_image",
    "last_image_url": "last_image",
    "last_image": "last_image",
}
SOUNDS = ("audio", "audio_base64")  #: what takes a sound
#: Values of `mode`, and whether a picture is needed.
_VIDEO_MODES: Mapping[str, bool] = {"video": True, "video_generation": True, "text": False}
_IMAGE_MODES: Mapping[str, bool] = {"image": False, "image_generation": False, "edit": True, "image_edit": True}
_SHORTEST_SECRET = 4  # characters; what is shorter would hide half of every text


@dataclass(frozen=True, slots=True)
class Asked:
    """An input, taken apart."""

    kind: Kind
    values: Mapping[str, object]  #: knobs and pictures, under the names they came in
    needs_picture: bool = False
    r2: object = field(default=None, repr=False)  #: storage that came with the request, with its keys
    storage: object = None  #: name of one of the operator's storage profiles

    def video(self, take: Take, fetch: Fetch | None, hear: Hear) -> VideoRequest:
        """The video that is asked for, its pictures and sound taken in. Raises InvalidRequest naming every problem at
        once."""
        values = dict(self.values)
        given = [text for name in SOUNDS if (text := values.pop(name, None)) not in (None, "")]
        request = with_defaults(replace(self, values=values)._request(VideoRequest.from_mapping, take, fetch))
        if not given:
            return request
        if len(given) > 1 or not isinstance(given[0], str):
            raise InvalidRequest.of("audio", "wrong_type", "must be one text.", "Send base64 or a data: URL.")
        return replace(request, audio=hear(picture_bytes(given[0].strip(), "audio", fetch), "audio"))

    def drawing(self, take: Take, fetch: Fetch | None) -> PictureRequest:
        """The same for pictures."""
        return self._request(PictureRequest.from_mapping, take, fetch)

    def _request(self, parse: Callable[[Mapping[str, object]], R], take: Take, fetch: Fetch | None) -> R:
        values = dict(self.values)
        problems: list[Problem] = []
        pictures = dict(_pictures(values, take, fetch, problems))
        if self.needs_picture and "image" not in pictures and not any(it.field == "image" for it in problems):
            cure = 'Send image_base64, or mode: "text" without one.' if self.kind == "video" else "Send image_base64."
            problems.append(Problem("image_base64", "required", "a picture is needed.", cure))
        if self.kind == "video" and not self.needs_picture and pictures:
            problems.append(
                Problem("image", "contradiction", 'mode "text" takes no picture.', "Leave one of them out.")
            )
        try:
            request = parse(values | pictures)
            problems += request.problems()
        except InvalidRequest as error:
            problems += error.problems
            raise InvalidRequest(*problems) from error
        if problems:
            raise InvalidRequest(*problems)
        return request


def read_input(given: object) -> Asked:
    """Takes an input apart. Raises InvalidRequest."""
    if not isinstance(given, Mapping):
        raise InvalidRequest.of("input", "wrong_type", "must be an object.", 'Send {"input": {"prompt": …}}.')
    values = dict(cast("Mapping[str, object]", given))
    r2, storage = values.pop("r2", None), values.pop("storage", None)
    warmup, mode = values.pop("warmup", None), values.pop("mode", None)
    if warmup is True:
        return Asked("warmup", values)
    if warmup not in (None, False):
        raise InvalidRequest.of("warmup", "wrong_type", "must be true or false.")
    if mode == "storyboard":
        return Asked("storyboard", values, False, r2, storage)
    if mode is None:
        return Asked("video", values, True, r2, storage)
    if isinstance(mode, str) and mode in _IMAGE_MODES:
        edit = {"mode": "edit"} if _IMAGE_MODES[mode] else {}
        return Asked("image", values | edit, _IMAGE_MODES[mode], r2, storage)
    if not isinstance(mode, str) or mode not in _VIDEO_MODES:
        known = " | ".join([*_VIDEO_MODES, *sorted(_IMAGE_MODES), "storyboard"])
        raise InvalidRequest.of("mode", "unknown_value", "is not offered.", f"Choose {known}.")
    return Asked("video", values, _VIDEO_MODES[mode], r2, storage)


def secrets_in(given: object) -> tuple[str, ...]:
    """Every text of an input that no answer, log or file may hold: whatever stands under `r2` but names and addresses."""
    r2 = cast("Mapping[str, object]", given).get("r2") if isinstance(given, Mapping) else None
    return tuple(sorted(set(_texts(r2)), key=len, reverse=True))


def with_length(request: VideoRequest, longest: int | None) -> VideoRequest:
    """The request with the length that the clients that exist expect, or the `longest` that its model makes."""
    if request.num_frames is not None or request.seconds is not None:
        return request
    return replace(request, num_frames=min(NUM_FRAMES, longest or NUM_FRAMES))


def _texts(value: object, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in cast("Mapping[object, object]", value).items():
            yield from _texts(inner, str(key))
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _texts(inner, name)
    elif isinstance(value, str) and len(value) >= _SHORTEST_SECRET and name not in _NO_SECRETS:
        yield value


_NO_SECRETS = frozenset({"endpoint_url", "bucket_name", "region"})


def _pictures(
    values: dict[str, object], take: Take, fetch: Fetch | None, problems: list[Problem]
) -> Iterator[tuple[str, PictureRef]]:
    """Takes the pictures out of `values`; what is wrong with them joins `problems`."""
    taken: dict[str, PictureRef] = {}
    for name, knob in PICTURES.items():
        text = values.pop(name, None)
        if text is None or text == "":
            continue
        if not isinstance(text, str):
            problems.append(Problem(knob, "wrong_type", f"{name} must be text.", "Send base64 or a data: URL."))
            continue
        try:
            picture = take(picture_bytes(text.strip(), knob, fetch), knob)
        except InvalidRequest as error:
            problems += error.problems
            continue
        if taken.setdefault(knob, picture).sha256 != picture.sha256:
            problems.append(Problem(knob, "contradiction", "was given twice.", "Give it once."))
    yield from taken.items()


def with_defaults(request: VideoRequest) -> VideoRequest:
    """What the clients that exist expect where they say nothing; the length waits for the model."""
    if request.width is None and request.height is None and request.resolution is None:
        request = replace(request, resolution="480P")
    return request if request.fps is not None else replace(request, fps=FPS)
