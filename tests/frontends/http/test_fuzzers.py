"""libFuzzer on whatever reads bytes from outside, by way of atheris, which is not among the dependencies."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("fuzzers.py")
TARGETS = ("multipart", "form", "json", "data_url", "picture", "address", "ranges")
SECONDS = int(os.environ.get("WANREEL_FUZZ_SECONDS", "60"))


def test_every_target_is_run() -> None:
    text = SCRIPT.read_text(encoding="utf-8")
    (named,) = re.findall(r"^TARGETS.*?\{(.*?)\}", text, re.DOTALL | re.MULTILINE)
    assert tuple(re.findall(r'"(\w+)"', named)) == TARGETS


@pytest.mark.deep
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="atheris is not installed: pip install atheris==3.0.0 (CPython 3.11 on Linux)",
)
@pytest.mark.parametrize("target", TARGETS)
def test_nothing_but_errors_for_clients(target: str, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, str(SCRIPT), target, f"-max_total_time={SECONDS}", "-max_len=8192", "-verbosity=0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    print(ran.stderr[-200:])
