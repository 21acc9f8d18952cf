"""Keys are kept as digests, compared as bytes, and revoked at once."""

from __future__ import annotations

import hashlib
import json
import logging
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from wanreel.core.errors import InvalidRequest, SettingsError
from wanreel.frontends.cli.app import cli
from wanreel.frontends.http.keys import PREFIX, KeyRing
from wanreel.frontends.http.logs import JsonLines, PlainLines, Scrubber


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing(tmp_path / "keys.json")


def test_the_file_holds_a_digest_and_not_the_key(ring: KeyRing) -> None:
    key = ring.create("a")
    text = ring.path.read_text()
    assert key.startswith(PREFIX) and len(key) >= len(PREFIX) + 43
    assert key not in text and key.removeprefix(PREFIX) not in text
    assert hashlib.sha256(key.encode()).hexdigest() in text
    if sys.platform != "win32":
        assert stat.S_IMODE(ring.path.stat().st_mode) == 0o600


def test_a_key_says_who_comes_and_what_he_may(ring: KeyRing) -> None:
    caller = ring.find(ring.create("a", ["read"], owner="team", submits_per_minute=5))
    assert caller is not None and caller.owner == "team" and caller.submits_per_minute == 5
    assert caller.may("read") and not caller.may("submit") and not caller.is_admin
    admin = ring.find(ring.create("b", ["admin"]))
    assert admin is not None and admin.may("read") and admin.may("submit")


@pytest.mark.parametrize("key", ["", "x", "\u00e9", "\udce9", "wanreel_", "a" * 100_000])
def test_odd_keys_are_unknown_and_no_fault(ring: KeyRing, key: Any) -> None:
    ring.create("a")
    assert ring.find(key) is None


def test_another_process_sees_a_revoked_key_at_once(ring: KeyRing) -> None:
    key = ring.create("a")
    other = KeyRing(ring.path)
    assert other.find(key) is not None
    ring.create("b")
    ring.revoke("a")
    assert other.find(key) is None and bool(other)
    ring.revoke("b")
    assert not other


def test_names_are_unique_and_scopes_known(ring: KeyRing) -> None:
    ring.create("a")
    with pytest.raises(InvalidRequest, match="already"):
        ring.create("a")
    with pytest.raises(InvalidRequest) as error:
        ring.create("a\n", ["all"])
    assert [problem.field for problem in error.value.problems] == ["name", "scopes"]
    with pytest.raises(InvalidRequest, match="no key"):
        ring.revoke("c")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 2, "keys": []}', '{"version": 1, "keys": [{"name": "a"}]}']
)
def test_a_damaged_file_is_named_and_lets_nobody_in(ring: KeyRing, text: Any) -> None:
    ring.path.write_text(text)
    with pytest.raises(SettingsError, match=r"keys\.json"):
        ring.find("x")


def test_the_command_makes_lists_and_revokes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path))
    run = lambda *words: CliRunner().invoke(cli, ["keys", *words], catch_exceptions=False)  # noqa: E731
    key = run("create", "phone", "--scope", "read", "--per-minute", "3").output.strip()
    caller = KeyRing(tmp_path / "keys.json").find(key)
    assert caller is not None and caller.scopes == {"read"} and caller.submits_per_minute == 3
    listed = run("list", "--json").output
    assert json.loads(listed)[0]["name"] == "phone" and key not in listed
    assert key not in run("list").output
    run("revoke", "phone")
    assert KeyRing(tmp_path / "keys.json").find(key) is None


def test_logs_hide_keys_and_keep_to_one_line(ring: KeyRing) -> None:
    key = ring.create("a")
    record = logging.makeLogRecord(
        {"msg": "who %s came\r\n{}", "args": (key,), "levelname": "INFO", "name": "x", "extra_fact": "s3cret"}
    )
    line = JsonLines(Scrubber(["s3cret"])).format(record)
    assert key not in line and "s3cret" not in line and "\n" not in line and "\r" not in line
    assert json.loads(line)["message"].startswith("who [hidden] came")
    assert key not in PlainLines(Scrubber()).format(record)
    unscrubbed = logging.Formatter().format(record)
    assert key in unscrubbed, "the control: without the scrubber it would show"
