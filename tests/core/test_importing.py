"""Garbage collection rests during imports and before the end of a process, and is as it was otherwise."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from wanreel.core.importing import giving_way, without_collecting


def test_collecting_rests_in_the_block_alone() -> None:
    assert gc.isenabled()
    with pytest.raises(KeyError), without_collecting():
        assert not gc.isenabled()
        raise KeyError
    assert gc.isenabled()


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with without_collecting():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_command_leaves_its_last_collection_nothing_to_look_at() -> None:
    program = (
        "import atexit, gc\n"
        "atexit.register(lambda: print('frozen', gc.get_freeze_count() > 10_000))\n"  # runs last
        "from wanreel.frontends.cli import main\n"
        "main(['--version'])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.endswith("frozen True\n")


def test_others_go_first_before_each_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "polite_outer.py").write_text("import polite_inner\n")
    for name in ("polite_inner", "polite_elsewhere"):
        (tmp_path / f"{name}.py").write_text("")
    waits: list[None] = []
    with giving_way(lambda: waits.append(None)):
        __import__("polite_outer")
        other = threading.Thread(target=__import__, args=("polite_elsewhere",))
        other.start()
        other.join()
    assert len(waits) == 2
    (tmp_path / "polite_later.py").write_text("")
    __import__("polite_later")
    assert len(waits) == 2
