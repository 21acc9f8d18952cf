"""/v1/images: the real openai client makes a picture, with a worker beside the server; jobs of pictures among others."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from PIL import Image

from frontends.http.places import Open, Place, serving
from wanreel.wiring import build_worker

MODEL = "tiny:sdxl-base"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, empty_database: Any) -> Iterator[tuple[Place, openai.OpenAI]]:
    """A server with a worker in a thread, and the client."""
    from frontends.http.places import places

    with places(tmp_path_factory.mktemp("images"), empty_database) as make:
        place = make(device="cpu")
        worker = build_worker(place.runtime)
        thread = threading.Thread(target=worker.run)
        thread.start()
        with serving(place.app) as port:
            yield place, openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", max_retries=0)
            worker.stop()
        thread.join()


def opened(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


def test_openais_client_makes_pictures(studio: tuple[Place, openai.OpenAI]) -> None:
    _, client = studio
    answer: Any = client.images.generate(
        model=MODEL, prompt="a red fox", n=2, size="72x64", response_format="b64_json", quality="high",
        extra_body={"seed": 5, "num_inference_steps": 2, "scheduler": "K_EULER"},
    )  # fmt: skip
    pictures = [opened(base64.b64decode(one.b64_json)) for one in answer.data]
    assert [picture.size for picture in pictures] == [(72, 64), (72, 64)]
    assert pictures[0].tobytes() != pictures[1].tobytes()
    assert answer.wanreel["seed"] == 5
    assert any("quality was not used" in note for note in answer.wanreel["notes"])
    assert json.loads(pictures[1].text["Comment"])["request"]["seed"] == 6  # type: ignore[attr-defined]


def test_a_picture_is_made_from_a_picture_and_fetched_at_its_address(
    studio: tuple[Place, openai.OpenAI], picture: bytes
) -> None:
    place, client = studio
    sent = base64.b64encode(picture).decode()
    answer = client.images.generate(
        model=MODEL, prompt="at night", response_format="url", extra_body={"image": sent, "strength": 0.5}
    )
    assert answer.data is not None and answer.data[0].url is not None
    path = answer.data[0].url.partition("7860")[2]
    assert opened(place.client.get(path).content).size == (80, 64)  # the picture's shape at about the model's area
    assert place.client.get(path, params={"variant": "thumbnail"}).headers["content-type"] == "image/jpeg"
    assert place.client.get(path, params={"variant": "manifest"}).json()["request"]["mode"] == "image"
    assert place.client.get(path, params={"number": 3}).status_code == 404


def test_jobs_of_pictures_are_listed_apart(studio: tuple[Place, openai.OpenAI]) -> None:
    place, _ = studio
    queued = place.client.post("/v1/images", json={"prompt": "a star", "model": MODEL}).json()
    assert (queued["object"], queued["num_frames"], queued["seconds"]) == ("image", 1, "0")
    listed = [row["id"] for row in place.client.get("/v1/images").json()["data"]]
    assert queued["id"] in listed
    assert queued["id"] not in [row["id"] for row in place.client.get("/v1/videos").json()["data"]]
    assert place.client.get(f"/v1/images/{queued['id']}").json()["prompt"] == "a star"
    assert place.client.delete(f"/v1/images/{queued['id']}").json()["deleted"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a", "model": "sdxl"}, "model"),
        ({"prompt": "a", "size": "wide"}, "size"),
        ({"prompt": "a", "model": MODEL, "background": "transparent"}, "background"),
        ({"prompt": "a", "model": MODEL, "last_image": "AAAA"}, "last_image"),
        ({"prompt": "a", "model": MODEL, "n": 11}, "num_images"),
        ({"prompt": "a", "model": MODEL, "response_format": "hologram"}, "response_format"),
        ({"prompt": "a", "model": "tiny:sdxl-refiner"}, "image"),
    ],
)
def test_what_cant_be_done_is_refused(shared: Place, body: dict[str, Any], field: str) -> None:
    answer = shared.client.post("/v1/images/generations", json=body)
    assert answer.status_code == 400
    assert field in answer.text


def test_a_video_model_is_no_picture_model_and_the_other_way_round(open_place: Open) -> None:
    place = open_place()
    assert "makes pictures" in place.client.post("/v1/videos", json={"prompt": "a", "model": "sdxl-base"}).text
    assert "sdxl-base" in place.client.post("/v1/images", json={"prompt": "a", "model": "demo"}).text
    models = place.client.get("/v1/models", params={"makes": "images"}).json()["data"]
    edits = ["qwen-image-edit-2511", "qwen-image-edit-2509", "qwen-image-edit"]
    assert [model["id"] for model in models] == ["sdxl-base", "sdxl-refiner", *edits]
    assert "sdxl-base" not in place.client.get("/v1/models").text


def test_openais_client_edits_a_picture(studio: tuple[Place, openai.OpenAI], picture: bytes) -> None:
    _, client = studio
    more = {"seed": 5, "num_inference_steps": 2}
    values: dict[str, Any] = {"model": "tiny:qwen-image-edit-2509", "prompt": "make it night", "extra_body": more}
    answer: Any = client.images.edit(image=("cat.png", picture), size="64x64", response_format="b64_json", **values)
    made = opened(base64.b64decode(answer.data[0].b64_json))
    asked = json.loads(made.text["Comment"])["request"]  # type: ignore[attr-defined]
    assert made.size == (64, 64) and (asked["prompt"], asked["seed"]) == ("make it night", 5)
    listed: Any = client.images.edit(image=[("cat.png", picture)], size="64x64", response_format="b64_json", **values)
    assert opened(base64.b64decode(listed.data[0].b64_json)).tobytes() == made.tobytes()
    for refused, field in (
        ({"image": ("cat.png", picture), "mask": ("mask.png", picture)}, "mask"),
        ({"image": ("cat.png", picture), "model": MODEL}, "model"),
    ):
        with pytest.raises(openai.BadRequestError, match=field):
            edit: Any = client.images.edit
            edit(**{**values, **refused})
