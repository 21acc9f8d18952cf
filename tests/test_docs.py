"""The documentation says what the program does: the reference is current, commands and snippets run, links lead somewhere."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from wanreel.core.catalog import MODELS
from wanreel.frontends.cli.app import COMMANDS
from wanreel.frontends.cli.serve import serve

ROOT = Path(__file__).parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), ROOT / "examples" / "README.md"])


def test_the_reference_is_current() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "make_docs.py", "--check"], check=False)
    assert done.returncode == 0, "run python scripts/make_docs.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)|src=\"([^\"]+)\"", page.read_text(encoding="utf-8")):
        link = target[0] or target[1]
        if not link.startswith("http"):
            assert (page.parent / link).exists(), link


LAUNCHER = ("--help", "--repair", "--setup-only")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        words = re.match(r"(?:\./launch\.sh|wanreel) ([a-z-]+)", line)
        if words and line.startswith("./launch.sh --"):
            assert words[1] in {*LAUNCHER, *(option for one in serve.params for option in one.opts)}, line
        elif words and words[1] != "--server":
            assert words[1] in COMMANDS, line


def test_python_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All snippets of docs/python.md in order, as one program."""
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(snippets) >= 3
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes((ROOT / "examples" / "cat.jpg").read_bytes())
    program = "\n".join(snippets).replace("VideoRequest(", "VideoRequest(num_frames=5, ")  # as they are, but short
    exec(program, {})
    assert len(list((tmp_path / "data" / "outputs").glob("*.mp4"))) == 3


@pytest.mark.parametrize("script", ["prompt_list.py", pytest.param("folder_of_pictures.py", marks=pytest.mark.deep)])
def test_examples_run(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `python examples/SCRIPT ARGUMENT` runs them, in this process, where torch is imported already."""
    photo = ROOT / "examples" / "cat.jpg"
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "cat.jpg").write_bytes(photo.read_bytes())
    (pictures / "broken.png").write_bytes(b"broken")
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANREEL_DEVICE", "cpu")
    monkeypatch.setattr(sys, "argv", [script, str(photo if script == "prompt_list.py" else pictures)])
    runpy.run_path(str(ROOT / "examples" / script), run_name="__main__")
    made = list((tmp_path / "data" / "outputs").glob("*.mp4"))
    assert len(made) == (3 if script == "prompt_list.py" else 1)
    assert ("broken.png" in capsys.readouterr().err) == (script == "folder_of_pictures.py")


def test_qualified_means_that_a_report_lies_there() -> None:
    reports = {path.stem for path in (ROOT / "docs" / "qualified").glob("*.json")}
    assert reports == {spec.name for spec in MODELS if spec.qualified}
