"""/v1/prompts: both texts side by side, templates, and what can't be asked."""

from __future__ import annotations

from typing import Any

import pytest

from frontends.http.places import Place


def post(place: Place, **body: Any) -> Any:
    return place.client.post("/v1/prompts/enhance", json=body)


def test_both_prompts_are_answered(shared: Place) -> None:
    answer = post(shared, prompt="a fox, static camera, pans left", model="demo").json()
    assert answer["original"] == "a fox, static camera, pans left" and answer["changed"]
    assert "pans left" not in answer["enhanced"] and "fine detail" in answer["enhanced"]
    assert answer["tokens"] | {"before": 0, "after": 0} == {
        "before": 0, "after": 0, "limit": 512, "exact": True, "counted_by": "demo's tokenizer",
    }  # fmt: skip
    assert {"contradiction", "added"} == {change["kind"] for change in answer["changes"]}
    again = post(shared, prompt=answer["enhanced"], model="demo").json()
    assert not again["changed"] and again["enhanced"] == answer["enhanced"]


def test_templates_fill_and_draw(shared: Place) -> None:
    names = {it["name"]: it for it in shared.client.get("/v1/prompts/templates").json()["data"]}
    assert names["portrait"]["slots"]["subject"] is None
    made = post(shared, template="portrait", variables={"subject": "a {man|woman}"}, seed=3).json()
    assert "{man|woman}" in made["original"] and "{" not in made["enhanced"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": "a fox", "by": "model"}, "by"),
        ({"prompt": "a fox", "model": "nothing"}, "model"),
        ({"template": "../../etc/passwd"}, "template"),
        ({"prompt": "a fox", "image": "../cat.png"}, "image"),
    ],
)
def test_what_can_not_be_asked(shared: Place, body: dict[str, Any], field: str) -> None:
    answer = post(shared, **body)
    assert answer.status_code == 400 and field in answer.text


def test_a_request_keeps_both_prompts(shared: Place) -> None:
    body = {"prompt": "a {red|red} circle", "use_prompt_enhancer": True, "model": "demo", "seed": 1}
    answer = shared.client.post("/v1/videos", json=body)
    assert answer.status_code == 200, answer.text
    assert "sharp focus" in answer.json()["prompt"]
    assert [it["field"] for it in answer.json()["wanreel"]["adjustments"]].count("prompt") == 2
    shared.client.delete(f"/v1/videos/{answer.json()['id']}")
