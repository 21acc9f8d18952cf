"""What OpenAI has and this server has not is refused at once, and the openai client does not try again."""

from __future__ import annotations

import pytest

from frontends.http.places import Place


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "edits"), ("POST", "characters"), ("GET", "characters/char_1")],
)
def test_what_is_not_built_says_so(shared: Place, method: str, path: str) -> None:
    answer = shared.client.request(method, f"/v1/videos/{path}")
    assert answer.status_code == 501 and answer.json()["error"]["code"] == "not_supported"
    assert answer.headers["x-should-retry"] == "false"
    described = shared.document()["paths"]["/v1/videos/" + path.replace("char_1", "{character_id}")][method.lower()]
    assert "501" in described["responses"]
