"""Finished videos finished otherwise: one generation, and files that hold what was asked for, looked at by probing them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from models.upscaler_files import tiny_upscaler
from wanreel.core.errors import InvalidRequest
from wanreel.core.job import Job, JobStatus
from wanreel.core.request import VideoRequest
from wanreel.media.recipe import read_recipe
from wanreel.media.video import probe, read_frames
from wanreel.service import request_of
from worker.place import SMALL, Place

PROMPT = "a red circle moves right over a blue background"
CASES: dict[str, dict[str, Any]] = {
    "trim": {"trim_start": 0.25, "trim_end": 0.5},
    "boomerang": {"loop": "boomerang"},
    "seamless": {"loop": "seamless"},
    "slow": {"speed": 0.5},
    "fast": {"speed": 2.0},
    "smooth": {"interpolate_fps": 24.0},
    "large": {"upscale": 1.5},
    "learned": {"upscaler": "tiny", "upscale": 3.0},
    "prores": {"output_format": "mov"},
    "sound": {"audio": True},
    "webm_sound": {"audio": True, "output_format": "webm"},
    "all": {
        "trim_end": 0.75,
        "loop": "boomerang",
        "speed": 0.5,
        "interpolate_fps": 24.0,
        "upscale": 2.0,
        "audio": True,
    },
}


def wav(seconds: float) -> bytes:
    """A tone in one channel at 44,100 samples a second."""
    data = io.BytesIO()
    with av.open(data, "w", format="wav") as container:
        stream: Any = container.add_stream("pcm_s16le", rate=44100, layout="mono")
        wave = np.sin(np.arange(int(seconds * 44100)) * 0.06) * 12000
        frame = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return data.getvalue()


@dataclass
class Made:
    """One video, and all that was made of its latents."""

    place: Place
    source: Job
    again: dict[str, Job]

    def path(self, name: str) -> Path:
        job = self.source if name == "source" else self.again[name]
        return self.place.service.results / self.place.service.files(job.id)["video"].name

    def frames(self, name: str) -> list[Any]:
        return list(read_frames(self.path(name)))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    place = Place(tmp_path_factory.mktemp("finishing"))
    sound = place.runtime.take_sound(wav(0.3))
    tiny_upscaler(place.runtime.settings.upscalers_dir / "tiny")
    service = place.service
    values = {**SMALL, "num_frames": 9, "prompt": PROMPT, "seed": 1, "fps": 8}
    source = service.submit(VideoRequest.from_mapping(values))
    place.work()
    again = {
        name: service.reexport(source.id, {**knobs, **({"audio": sound} if "audio" in knobs else {})})
        for name, knobs in CASES.items()
    }
    place.work()
    yield Made(place, service.get(source.id), {name: service.get(job.id) for name, job in again.items()})
    place.close()


@pytest.mark.parametrize("name", CASES)
def test_the_file_holds_what_was_foretold(made: Made, name: str) -> None:
    job = made.again[name]
    assert job.status is JobStatus.COMPLETED, job.error
    shape, facts = request_of(job).finished, probe(made.path(name))
    assert (facts.num_frames, facts.width, facts.height) == (shape.num_frames, shape.width, shape.height)
    assert abs(float(facts.fps) - shape.fps) < 0.01
    with av.open(str(made.path(name))) as container:
        assert container.duration is not None
        assert abs(container.duration / 1e6 - shape.seconds) < 0.06


def test_the_source_is_as_it_would_be_without_any_of_this(made: Made) -> None:
    assert "finishing" not in json.loads(made.source.request)
    assert (probe(made.path("source")).num_frames, made.path("source").suffix) == (9, ".mp4")


def test_which_frames_each_stage_shows(made: Made) -> None:
    source = made.frames("source")

    def like(name: str, numbers: list[int]) -> None:
        shown = made.frames(name)
        assert len(shown) == len(numbers)
        for frame, number in zip(shown, numbers, strict=True):
            errors = [np.abs(frame.astype(int) - other).mean() for other in source]
            assert errors[number] <= min(errors) + 1.0 and errors[number] < 6, (name, number, errors)

    like("trim", [2, 3])
    like("boomerang", [0, 1, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1])
    like("slow", [n // 2 for n in range(18)])
    like("fast", [0, 2, 4, 6])
    like("prores", list(range(9)))
    assert np.abs(made.frames("smooth")[3].astype(int) - source[1]).mean() < 6  # 24 to 8: each third is one of ours


def test_sound_is_as_long_as_the_video(made: Made) -> None:
    for name, codec in (("sound", "aac"), ("webm_sound", "opus"), ("all", "aac")):
        with av.open(str(made.path(name))) as container:
            (stream,) = container.streams.audio
            assert stream.codec_context.name.removeprefix("lib") == codec
            pieces = [frame.to_ndarray() for frame in container.decode(audio=0)]
            samples = np.concatenate([np.atleast_2d(piece)[0] for piece in pieces])
            assert abs(len(samples) / 48000 - request_of(made.again[name]).finished.seconds) < 0.05
            loud = np.abs(samples[2400:9600]).max()
            assert loud > 20 * max(1e-4, np.abs(samples[20000:]).max())  # the tone is 0.3 s long; silence follows
    with av.open(str(made.path("boomerang"))) as container:
        assert not container.streams.audio


def test_prores_is_for_editors(made: Made) -> None:
    facts = probe(made.path("prores"))
    assert (facts.codec, facts.pixel_format, made.path("prores").suffix) == ("prores", "yuv422p10le", ".mov")
    files = made.place.service.files(made.again["prores"].id)
    assert files["video"].media_type == "video/quicktime"


def test_nothing_was_generated_again(made: Made) -> None:
    for job in made.again.values():
        kinds = [event.kind for event in made.place.service.store.events(job.id)]
        assert "resumed" in kinds and "encoded" not in kinds, kinds
        assert job.parent_id == made.source.id


def test_the_recipe_names_all_stages(made: Made) -> None:
    recipe = json.loads(read_recipe(made.path("all")))["request"]
    assert recipe["finishing"].keys() == {"trim_end", "loop", "speed", "interpolate_fps", "upscale", "audio"}
    values = made.place.runtime.recipe_values(made.path("all"))
    again = made.place.runtime.resolve(VideoRequest.from_mapping(values)).request
    assert again == request_of(made.again["all"])


def test_the_network_is_named_with_its_digest_and_must_be_the_same(made: Made) -> None:
    place, job = made.place, made.again["learned"]
    upscaler = place.runtime.upscalers.get("tiny")
    manifest = json.loads((place.service.results / place.service.files(job.id)["manifest"].name).read_text())
    assert manifest["request"]["finishing"]["upscaler"]["sha256"] == upscaler.sha256
    queued = place.service.reexport(job.id, {"output_format": "webm"})
    tiny_upscaler(place.runtime.settings.upscalers_dir / "tiny", seed=1)
    place.work()
    failed = place.service.get(queued.id)
    assert failed.error is not None and "another one than when" in failed.error.message


def test_the_last_frame_is_the_last_that_trimming_leaves(made: Made) -> None:
    from PIL import Image

    still = made.place.service.results / made.place.service.files(made.again["trim"].id)["last_frame"].name
    with Image.open(still) as image:
        shown = np.asarray(image.convert("RGB")).astype(int)
    assert np.abs(shown - made.frames("trim")[-1]).mean() < 6
    of_all = made.place.service.results / made.place.service.files(made.again["all"].id)["last_frame"].name
    with Image.open(of_all) as whole:
        assert whole.size == (64, 64)  # as generated: another video may go on from it


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seed": 5}, "seed"),
        ({"trim_start": 9.0}, "trim_start"),
        ({"speed": 9.0}, "speed"),
        ({"audio": True, "output_format": "gif"}, "audio"),
    ],
)
def test_what_can_t_be_done_is_named(made: Made, changes: dict[str, Any], field: str) -> None:
    if "audio" in changes:
        changes = {**changes, "audio": request_of(made.again["sound"]).finishing.audio}
    with pytest.raises(InvalidRequest) as error:
        made.place.service.reexport(made.source.id, changes)
    assert [problem.field for problem in error.value.problems] == [field]
