"""Whatever the OpenAPI document allows, and whatever it does not: no 5xx, and every answer as the document says."""

from __future__ import annotations

import contextlib
import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig

from frontends.http.places import HERE, Place, serving
from wanreel.jobs import Liveness

#: Not fuzzed: streams without end, and one that waits for a worker.
_ENDLESS = ("/v1/events", "/v1/videos/sync", "/v1/images/generations")
#: These answer 501 to whatever comes; see test_unbuilt.
_UNBUILT = ("/v1/videos/edits", "/v1/videos/characters")
_INTERNALS = re.compile(r"0x[0-9a-f]{6,}|Traceback|site-packages|/home/|\.py\b")


def fuzz(place: Place, examples: int) -> int:
    """Calls every operation with generated input; returns how many calls were made."""
    config = SchemathesisConfig.from_dict({"checks": {"positive_data_acceptance": {"enabled": False}}})
    document = schemathesis.openapi.from_dict(place.document(), config=config)
    name, _lock = Liveness(place.service.data.workers).new_worker("fuzz")
    place.service.store.leases.register(name)
    with serving(place.app) as port:
        document.config.update(base_url=f"http://127.0.0.1:{port}")
        return _fuzz(document, examples)


def _fuzz(document: Any, examples: int) -> int:
    """One example of each is brief: ids alone, which take a second to be made wrong, are left right then."""
    calls, brief = 0, examples == 1
    for result in document.get_all_operations():
        operation = result.ok()
        if operation.path in _ENDLESS or operation.path.endswith("/events") or operation.path.startswith(_UNBUILT):
            continue
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            if brief and mode is GenerationMode.NEGATIVE and not [*operation.body, *operation.query]:
                continue

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=examples,
                deadline=None,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=[
                    HealthCheck.too_slow,
                    HealthCheck.filter_too_much,
                    HealthCheck.function_scoped_fixture,
                ],
            )
            def call(case: Any) -> None:
                nonlocal calls
                calls += 1
                answer = case.call()
                assert answer.status_code < 500, answer.text
                assert not _INTERNALS.search(answer.text)
                case.validate_response(answer)

            # An operation without input has none that is wrong.
            with contextlib.suppress(Unsatisfiable):
                call()
    return calls


@pytest.mark.timeout(200)
def test_every_operation_briefly(open_place: Any) -> None:
    assert fuzz(open_place(enter=False, max_queue_size=100_000), 1) > 100


@pytest.mark.deep
@pytest.mark.timeout(3600)
def test_every_operation_at_length(open_place: Any) -> None:
    assert fuzz(open_place(enter=False, max_queue_size=1_000_000), 400) > 10_000


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"]),
    path=st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=60),
    headers=st.dictionaries(
        st.sampled_from(
            ["Range", "Last-Event-ID", "Idempotency-Key", "Content-Type", "Cookie", "Authorization", "Content-Length"]
        ),
        st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30),
        max_size=3,
    ),
)
def test_odd_methods_paths_and_headers_are_no_fault(
    shared: Place, method: str, path: str, headers: dict[str, str]
) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    answer = shared.client.request(method, f"{HERE}/v1/videos/{path}", headers=sent)
    assert 400 <= answer.status_code < 500 or answer.status_code == 200
    assert not _INTERNALS.search(answer.text)
