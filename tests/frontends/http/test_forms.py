"""Bodies of every shape become values or a refusal, never a fault."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from wanreel.frontends.http.errors import Refused
from wanreel.frontends.http.forms import Upload, display_name, json_object, nested, read_body


def request(body: bytes, content_type: str) -> Request:
    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": headers}, receive)


def multipart(*parts: tuple[str, str | None, bytes], boundary: bytes = b"b") -> bytes:
    """A form of (name, file name, data)."""
    lines = b""
    for name, filename, data in parts:
        file = f'; filename="{filename}"' if filename is not None else ""
        lines += (
            b"--"
            + boundary
            + f'\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode()
            + data
            + b"\r\n"
        )
    return lines + b"--" + boundary + b"--\r\n"


async def read(body: bytes, content_type: str) -> Any:
    return await read_body(request(body, content_type))


@pytest.fixture
def run() -> Any:
    import asyncio

    return asyncio.run


def test_bracket_keys_as_the_openai_client_sends_them() -> None:
    fields = [
        ("num_frames", "81"),
        ("nested[a]", "1"),
        ("nested[b][c]", "2"),
        ("loras[][name]", "a"),
        ("loras[][strength]", "0.5"),
        ("loras[][name]", "b"),
        ("tags[]", "x"),
        ("tags[]", "y"),
    ]
    assert nested(fields) == {
        "num_frames": "81",
        "nested": {"a": "1", "b": {"c": "2"}},
        "loras": [{"name": "a", "strength": "0.5"}, {"name": "b"}],
        "tags": ["x", "y"],
    }


def test_json_text_in_fields_that_hold_lists_and_objects() -> None:
    assert nested([("loras", '[{"name": "a"}]'), ("prompt", '{"not": "read"}')]) == {
        "loras": [{"name": "a"}],
        "prompt": '{"not": "read"}',
    }


@pytest.mark.parametrize(
    "fields",
    [
        [("a", "1"), ("a", "2")],
        [("a[b]", "1"), ("a", "2")],
        [("a", "1"), ("a[b]", "2")],
        [("a[]", "1"), ("a[b]", "2")],
        [("a[[b]]", "1")],
        [("", "1")],
        [("a[1][2][3][4][5]", "1")],
        [("a[]", "x")] * 33,
    ],
)
def test_contradicting_fields_are_refused(fields: Any) -> None:
    with pytest.raises(Refused):
        nested(fields)


@given(st.lists(st.tuples(st.text(alphabet="ab[]0", max_size=8), st.text(max_size=4)), max_size=6))
def test_any_fields_are_values_or_a_refusal(fields: Any) -> None:
    try:
        values = nested(fields)
    except Refused:
        return
    json.dumps(values)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"[]", b"3", b"{", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b"\xff\xfe{}", b'{"a": "\\ud800"}',
        b'{"\\udc00": 1}', b'{"a": ' + b"1" * 5000 + b"}", b"[" * 10_000, b'{"a":' * 10_000, b'{"a":' * 40 + b"1" + b"}" * 40,
    ],
)  # fmt: skip
def test_what_is_no_plain_json_object_is_refused(text: Any) -> None:
    with pytest.raises(Refused) as refusal:
        json_object(text)
    assert refusal.value.status == 400


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_a_refusal(data: Any) -> None:
    try:
        json_object(data)
    except Refused as refusal:
        assert refusal.status == 400


def test_files_come_with_a_name_that_is_only_shown(run: Any) -> None:
    form = multipart(("prompt", None, "Grüße".encode()), ("input_reference", "../../etc/\x01passwd", b"\x89PNG"))
    body = run(read(form, "multipart/form-data; boundary=b"))
    assert body.values == {"prompt": "Grüße"}
    assert body.files == {"input_reference": Upload("passwd", b"\x89PNG")}


@pytest.mark.parametrize(
    "name", ["a/b.png", "a\\b.png", "/b.png", "C:\\x\\b.png", "\u202eb.png", "b\n.png", "b\x00.png"]
)
def test_a_name_is_its_last_part_without_control_characters(name: Any) -> None:
    assert display_name(name) == "b.png"


def test_extra_body_counts_as_part_of_the_body(run: Any) -> None:
    body = run(
        read(b'{"prompt": "x", "extra_body": {"seed": 1}, "extra_params": "{\\"fps\\": 8}"}', "application/json")
    )
    assert body.values == {"prompt": "x", "seed": 1, "fps": 8}
    with pytest.raises(Refused, match="different values"):
        run(read(b'{"seed": 2, "extra_body": {"seed": 1}}', "application/json"))


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/jsonx", "application/x-ndjson", "image/png"])
def test_other_types_are_not_read(run: Any, content_type: Any) -> None:
    with pytest.raises(Refused) as refusal:
        run(read(b"{}", content_type))
    assert refusal.value.status == 415


@pytest.mark.parametrize(
    ("form", "content_type"),
    [
        (b"", "multipart/form-data"),
        (b"garbage", "multipart/form-data; boundary=b"),
        (b"--b\r\n\r\n", "multipart/form-data; boundary=b"),
        (b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", "multipart/form-data; boundary=b"),
        (multipart(*[(f"f{i}", "f", b"x") for i in range(4)]), "multipart/form-data; boundary=b"),
        (multipart(*[(f"f{i}", None, b"x") for i in range(70)]), "multipart/form-data; boundary=b"),
        (b"&".join(b"f%d=1" % i for i in range(70)), "application/x-www-form-urlencoded"),
    ],
)  # fmt: skip
def test_broken_and_overfull_forms_are_refused(run: Any, form: Any, content_type: Any) -> None:
    with pytest.raises(Refused) as refusal:
        run(read(form, content_type))
    assert refusal.value.status == 400
