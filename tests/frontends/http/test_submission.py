"""What other servers' clients send means here what it says, or is refused by name; nothing is changed in silence."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from wanreel.core.errors import InvalidRequest
from wanreel.core.picture import PictureRef
from wanreel.core.sound import SoundRef
from wanreel.frontends.http.forms import Body, Upload
from wanreel.frontends.http.pictures import FIELDS, PictureDesk
from wanreel.frontends.http.sounds import SoundDesk
from wanreel.frontends.http.submission import translate
from wanreel.frontends.http.uploads import Uploads

PICTURE = b"\x89PNG" + b"p" * 96


def take(data: bytes, knob: str) -> PictureRef:
    return PictureRef(data.hex()[:64].ljust(64, "0"), len(data), 1)


def hear(data: bytes, knob: str) -> SoundRef:
    return SoundRef(data.hex()[:64].ljust(64, "0"), float(len(data)))


@pytest.fixture
def uploads(tmp_path: Path) -> Any:
    return Uploads(tmp_path)


@pytest.fixture
def desk(uploads: Uploads) -> Any:
    return PictureDesk(take, uploads)


def translated(desk: PictureDesk, files: Any = None, **values: Any) -> Any:
    return translate(Body(values, files or {}), "me", desk, SoundDesk(hear, desk.uploads))


def problems(desk: PictureDesk, **values: Any) -> Any:
    with pytest.raises(InvalidRequest) as error:
        translated(desk, **{"prompt": "x", **values}).request()
    return [(problem.field, problem.code) for problem in error.value.problems]


def test_the_pair_of_guidance_is_high_first(desk: PictureDesk) -> None:
    request = translated(desk, prompt="x", guidance_scale="4", guidance_scale_2="3").request()
    assert (request.guidance_scale, request.guidance_low) == (4.0, 3.0)


@pytest.mark.parametrize("size", ["1280x720", " 1280X720 ", "1280*720", "1280×720"])
def test_size_is_width_and_height(desk: PictureDesk, size: Any) -> None:
    request = translated(desk, prompt="x", size=size).request()
    assert (request.width, request.height) == (1280, 720)


@pytest.mark.parametrize("size", ["720p", "1280x", "x", "1280x720x3", 5, {"w": 1}, "-1x5", "123456x1"])
def test_other_sizes_are_refused(desk: PictureDesk, size: Any) -> None:
    assert ("size", "bad_size") in problems(desk, size=size)


def test_size_may_agree_with_width_but_not_differ(desk: PictureDesk) -> None:
    assert translated(desk, prompt="x", size="64x80", width="64", height=80).request().width in (64, "64")
    assert ("size", "contradiction") in problems(desk, size="64x80", width=96)


@pytest.mark.parametrize("field", ["output_path", "save_result_path", "user", "generator_device"])
def test_fields_that_mean_nothing_here_are_noted(desk: PictureDesk, field: Any) -> None:
    submission = translated(desk, prompt="x", **{field: "/etc/cron.d/x"})
    submission.request()
    assert len(submission.notes) == 1 and field in submission.notes[0] and "cron" not in submission.notes[0]


def test_what_asks_for_nothing_passes(desk: PictureDesk) -> None:
    translated(
        desk, prompt="x", n="1", num_outputs_per_prompt=1, enable_teacache="false", enable_upscaling=False
    ).request()


@pytest.mark.parametrize(
    ("field", "value"), [("n", 2), ("enable_teacache", "true"), ("enable_upscaling", True), ("n", {})]
)
def test_what_cannot_be_done_is_refused_by_name(desk: PictureDesk, field: Any, value: Any) -> None:
    assert problems(desk, **{field: value}) == [(field, "unsupported")]


def test_all_problems_come_at_once(desk: PictureDesk) -> None:
    found = problems(desk, size="?", n=3, bogus=1, image_path="/etc/passwd")
    assert {field for field, _ in found} == {"size", "n", "bogus", "image"}


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_a_picture_comes_as_file_base64_data_url_or_upload(desk: PictureDesk, uploads: Uploads, field: Any) -> None:
    knob = FIELDS[field]
    known = uploads.add("me", "cat.png", 4, take(PICTURE, ""))
    text = base64.b64encode(PICTURE).decode()
    shapes = [
        f"data:image/png;base64,{text}",
        f"DATA:image/png;charset=x;base64,{text}",
        known.id,
        {"file_id": known.id},
    ]
    shapes += [{"image_url": f"data:image/png;base64,{text}"}, {"image_url": {"url": f"data:;base64,{text}"}}]
    if not field.endswith("_path"):
        shapes.append(text)
    for shape in shapes:
        submission = translated(desk, prompt="x", **{field: shape})
        assert submission.values[knob] == take(PICTURE, knob), shape
    sent = translated(desk, {field: Upload("f.png", PICTURE)}, prompt="x")
    assert sent.values[knob] == take(PICTURE, knob)


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../../etc/passwd",
        "cat.png",
        "C:\\x.png",
        "//host/share",
        "~/x",
        "file-" + "0" * 32,
        "..",
        "\x00",
    ],
)
@pytest.mark.parametrize("field", ["image", "image_path", "input_reference", "last_frame_path"])
def test_a_path_is_never_read(
    desk: PictureDesk, path: Any, field: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr("pathlib.Path.open", lambda self, *a, **k: opened.append(self))
    ((knob, code),) = problems(desk, **{field: path})
    assert knob == FIELDS[field] and code in ("no_upload", "url_not_read")
    assert all(one.is_relative_to(tmp_path) and ".." not in one.parts for one in opened)


def test_a_name_counts_where_one_upload_of_this_owner_has_it(desk: PictureDesk, uploads: Uploads) -> None:
    one = uploads.add("me", "cat.png", 1, take(b"1", ""))
    uploads.add("you", "dog.png", 1, take(b"2", ""))
    assert translated(desk, prompt="x", image_path="cat.png").values["image"] == one.picture
    assert problems(desk, image_path="dog.png") == [("image", "no_upload")]
    uploads.add("me", "cat.png", 1, take(b"3", ""))
    assert problems(desk, image_path="cat.png") == [("image", "ambiguous")]


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x.png", "https://example.com/x.png", "file:///etc/passwd", "gopher://x", "ftp://x"]
)
def test_addresses_are_not_read_unless_the_operator_wants_it(desk: PictureDesk, url: Any) -> None:
    assert problems(desk, image_url=url) == [("image", "url_not_read")]
    assert problems(desk, input_reference={"image_url": url}) == [("image", "url_not_read")]


def test_only_http_addresses_reach_the_fetcher(uploads: Uploads) -> None:
    asked = []
    desk = PictureDesk(take, uploads, lambda url, knob: asked.append((url, knob)) or PICTURE)
    assert translated(desk, prompt="x", last_image_url="https://example.com/x.png").values["last_image"] == take(
        PICTURE, ""
    )
    assert asked == [("https://example.com/x.png", "last_image")]
    assert problems(desk, image_url="file:///etc/passwd") == [("image", "url_not_read")]


@pytest.mark.parametrize(
    "value", [3, [], ["a"], {}, {"file_id": 3}, "data:image/png;base64,!!!", "x" * 100 + "!", {"image_url": {}}]
)
def test_other_shapes_are_refused(desk: PictureDesk, value: Any) -> None:
    assert [field for field, _ in problems(desk, image=value)] == ["image"]


def test_two_different_pictures_contradict(desk: PictureDesk) -> None:
    text = base64.b64encode(PICTURE).decode()
    other = base64.b64encode(PICTURE[::-1]).decode()
    assert translated(desk, prompt="x", image=text, input_reference=text).values["image"] == take(PICTURE, "")
    assert problems(desk, image=text, input_reference=other) == [("image", "contradiction")]
