"""`wanreel storage` and `wanreel storage check`, as an operator types them, against a real S3 server."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from storage.fault_proxy import fault_proxy, refuse
from storage.seaweed import ACCESS, BUCKET, SECRET
from wanreel.frontends.cli import main

if TYPE_CHECKING:
    from storage.seaweed import Seaweed

pytestmark = pytest.mark.xdist_group("s3")

WRONG = "a-wrong-canary-of-a-secret"
STEPS = [
    "put an object, and found it there",
    "read it with the keys",
    "read it by its address, as clients do",
    "deleted it",
]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Exit code, stdout and stderr of `wanreel storage …` under settings with the profiles that are given."""
    from botocore.retries.standard import ExponentialBackoff

    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.0)
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "500")  # no line is broken, however long names are

    def command(*words: str, default: str = "", **profiles: dict[str, Any]) -> tuple[int, str, str]:
        monkeypatch.setenv("WANREEL_STORAGE", json.dumps(profiles))
        monkeypatch.setenv("WANREEL_DEFAULT_STORAGE", default)
        with pytest.raises(SystemExit) as ended:
            main(["storage", *words])
        out, err = capsys.readouterr()
        for secret in (SECRET, ACCESS, WRONG):
            assert secret not in out + err
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return command


def closed_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def test_the_profiles_are_listed_without_their_keys(run: Run, s3: Seaweed) -> None:
    code, out, _ = run(default="lan", lan=s3.profile(prefix="wan"), aws={"bucket": "archive", "prefix": ""})
    assert code == 0
    aws, lan = out.splitlines()
    assert aws.split() == ["aws", "AWS,", "archive"]
    assert lan.split() == ["lan", f"{s3.url},", f"{BUCKET}/wan", "(default)"]
    code, out, _ = run()
    assert code == 0 and "no storage profile" in out and "[storage.NAME]" in out


def test_what_works_is_ticked_off_and_nothing_stays(run: Run, s3: Seaweed) -> None:
    before = s3.objects()
    code, out, err = run("check", "lan", lan=s3.profile(prefix="wan"))
    assert (code, err) == (0, "")
    assert out.splitlines() == [f"✓ {step}" for step in STEPS]
    code, out, _ = run("check", "lan", "--json", lan=s3.profile(prefix="wan"))
    assert (code, json.loads(out)) == (0, {"profile": "lan", "ok": True, "done": STEPS})
    assert s3.objects() == before


def wrong_key(url: str) -> dict[str, Any]:
    return {"endpoint": url, "secret_access_key": WRONG}


WRONGS: dict[str, tuple[Callable[[str], dict[str, Any]], tuple[str, ...]]] = {
    "refused key": (wrong_key, ("SignatureDoesNotMatch", "Check secret_access_key and region.")),
    "unknown key": (lambda url: {"access_key_id": "AKIANOBODY"}, ("InvalidAccessKeyId", "Check access_key_id.")),
    "unreachable": (lambda url: {"endpoint": f"http://127.0.0.1:{closed_port()}"}, ("can't be reached",)),
}


@pytest.mark.parametrize("case", WRONGS)
def test_what_is_wrong_is_said(run: Run, s3: Seaweed, case: str) -> None:
    change, said = WRONGS[case]
    profile = s3.profile(**change(s3.url))
    code, out, err = run("check", "lan", lan=profile)
    assert (code, out) == (5, ""), (out, err)
    code, out, quiet = run("check", "lan", "--json", lan=profile)
    answer = json.loads(out)
    assert (code, quiet, answer["ok"], answer["done"]) == (5, "", False, [])
    for part in said:
        assert part in err and part in answer["error"]["message"] + answer["error"]["hint"]


def test_a_missing_bucket(run: Run, s3: Seaweed) -> None:
    """SeaweedFS makes one; others refuse, in words of their own that are not repeated."""
    with fault_proxy(s3.url) as proxy:
        proxy.harm(refuse(404, "NoSuchBucket"), method="PUT")
        code, out, err = run("check", "lan", lan=s3.profile(proxy.url))
    assert (code, out) == (5, "") and "NoSuchBucket" in err and "Make the bucket" in err
    assert "canary-message" not in err


def test_addresses_that_clients_can_not_use(run: Run, s3: Seaweed) -> None:
    """The keys work; what clients would be given does not. The object is deleted all the same."""
    before = s3.objects()
    away = s3.profile(public_url=f"http://127.0.0.1:{closed_port()}")
    code, out, err = run("check", "lan", lan=away)
    assert (code, out.splitlines()) == (5, [f"✓ {step}" for step in STEPS[:2]])
    assert "can't be reached" in err and "public_url" in err
    private = s3.profile(public_url=f"{s3.url}/{BUCKET}")
    code, _, err = run("check", "lan", lan=private)
    assert code == 5 and "status 403" in err and "public" in err
    assert s3.objects() == before


def test_a_profile_that_is_not_there(run: Run, s3: Seaweed) -> None:
    code, out, err = run("check", "nowhere", lan=s3.profile())
    assert (code, out) == (2, "") and "nowhere" in err
    code, out, err = run("check", "nowhere", "--json", lan=s3.profile())
    assert (code, err) == (2, "") and "nowhere" in json.loads(out)["error"]["message"]
