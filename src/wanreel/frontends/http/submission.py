"""From the fields other servers' clients send to a VideoRequest. Never a silent change: what can't be done is refused,
what means nothing here is named in a note."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from wanreel.core.destination import Destination
from wanreel.core.errors import InvalidRequest, Problem
from wanreel.core.picture import PictureRef
from wanreel.core.request import VideoRequest
from wanreel.frontends.http.forms import Body, Upload
from wanreel.frontends.http.pictures import FIELDS, PictureDesk
from wanreel.frontends.http.sounds import FIELDS as SOUND_FIELDS
from wanreel.frontends.http.sounds import SoundDesk

_SIZE = re.compile(r"([0-9]{1,5})[xX×*]([0-9]{1,5})")
#: Read and not used, with the reason that is told.
_IGNORED: Mapping[str, str] = {
    "user": "not kept",
    "output_path": "files are kept by job and fetched with GET /v1/videos/{id}/content",
    "save_result_path": "files are kept by job and fetched with GET /v1/videos/{id}/content",
    "generator_device": "noise is always drawn on the CPU, so that a seed means the same everywhere",
    "response_format": "the video is fetched with GET /v1/videos/{id}/content",
}
#: Accepted where they ask for nothing; the values that do.
_NEUTRAL: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "num_outputs_per_prompt": (1,),
    "num_videos_per_prompt": (1,),
    "enable_teacache": (False,),
    "enable_frame_interpolation": (False,),
    "enable_upscaling": (False,),
    "generate_sound": (False,),
    "max_sequence_length": (512,),
}
#: Knobs that do what others' switches ask for.
_INSTEAD: Mapping[str, str] = {
    "enable_frame_interpolation": "Ask for interpolate_fps, for example 32.",
    "enable_upscaling": "Ask for upscale, for example 2.",
}
_HOW_MANY = ("n", "num_outputs_per_prompt", "num_videos_per_prompt")


@dataclass
class Submission:
    """A request as it came in, being translated."""

    values: dict[str, object]
    notes: list[str] = field(default_factory=list[str])  #: what was read and not used
    problems: list[Problem] = field(default_factory=list[Problem])
    webhook_url: str = ""  #: who is to be told of the end
    own_storage: Destination | None = None  #: where the result goes, with keys that came along

    def request(self) -> VideoRequest:
        """The request. Raises InvalidRequest naming every problem at once."""
        try:
            request = VideoRequest.from_mapping(self.values)
            problems = [*self.problems, *request.problems()]
        except InvalidRequest as error:
            raise InvalidRequest(*self.problems, *error.problems) from error
        if problems:
            raise InvalidRequest(*problems)
        return request


def translate(body: Body, owner: str, desk: PictureDesk, sounds: SoundDesk) -> Submission:
    """A body as a submission, its pictures and its sound taken in. Blocks while they are read."""
    submission = Submission(dict(body.values))
    files = dict(body.files)
    _take_sound(submission, files, owner, sounds)
    take_pictures(submission, files, owner, desk)
    split_size(submission)
    _drop(submission)
    return submission


def take_pictures(submission: Submission, files: Mapping[str, Upload], owner: str, desk: PictureDesk) -> None:
    """The pictures of a body, read and kept, in the place of what was sent. Blocks."""
    given: dict[str, object] = {name: submission.values.pop(name) for name in FIELDS if name in submission.values}
    for name, file in files.items():
        if name not in FIELDS:
            submission.problems.append(
                Problem(name, "unknown_field", "takes no file.", "Send the picture as input_reference.")
            )
        given.setdefault(name, file)
    taken: dict[str, PictureRef] = {}
    for name, value in given.items():
        knob = FIELDS.get(name)
        if (
            knob is None
            or value is None
            or value == ""
            or isinstance(value, Upload)
            and not value.data
            and not value.name
        ):
            continue
        try:
            picture = desk.accept(owner, name, value)
        except InvalidRequest as error:
            submission.problems.extend(error.problems)
            continue
        if taken.setdefault(knob, picture).sha256 != picture.sha256:
            submission.problems.append(Problem(knob, "contradiction", "was given twice.", "Give it once."))
    submission.values.update(taken)


def _take_sound(submission: Submission, files: dict[str, Upload], owner: str, desk: SoundDesk) -> None:
    """The sound of a body, in the place of what was sent; its file leaves `files`. Blocks."""
    given = [found for name in SOUND_FIELDS if (found := files.pop(name, submission.values.pop(name, None)))]
    given = [found for found in given if not isinstance(found, Upload) or found.data or found.name]
    if len(given) > 1:
        submission.problems.append(Problem("audio", "contradiction", "was given twice.", "Give it once."))
    elif given:
        try:
            submission.values["audio"] = desk.accept(owner, given[0])
        except InvalidRequest as error:
            submission.problems.extend(error.problems)


def split_size(submission: Submission) -> None:
    """OpenAI's "1280x720" as width and height."""
    size = submission.values.pop("size", None)
    if size is None or size in ("", "auto"):
        return
    match = _SIZE.fullmatch(size.strip()) if isinstance(size, str) else None
    if match is None:
        submission.problems.append(Problem("size", "bad_size", "is not WIDTHxHEIGHT.", "For example 1280x720."))
        return
    for name, text in (("width", match[1]), ("height", match[2])):
        if submission.values.setdefault(name, int(text)) not in (int(text), text):
            submission.problems.append(
                Problem("size", "contradiction", f"differs from {name}.", "Give one or the other.")
            )


def _drop(submission: Submission) -> None:
    """Fields that are not knobs: noted where they mean nothing here, refused where they ask for what can't be done."""
    for name, reason in _IGNORED.items():
        if submission.values.pop(name, None) is not None:
            submission.notes.append(f"{name} was not used: {reason}.")
    for name, neutral in _NEUTRAL.items():
        value = submission.values.pop(name, None)
        if value is None or _plain(value) in neutral:
            continue
        if name in _HOW_MANY:
            text, hint = "one video is made per request.", "Send the request again for another one."
        else:
            text, hint = "can't be done here.", _INSTEAD.get(name, "Leave it out.")
        submission.problems.append(Problem(name, "unsupported", text, hint))


def _plain(value: object) -> object:
    """A form's text as what it says."""
    if not isinstance(value, str):
        return value
    words: dict[str, object] = {"true": True, "false": False}
    text = value.strip().lower()
    return words.get(text, int(text) if text.isdecimal() and len(text) < 10 else cast("object", text))
