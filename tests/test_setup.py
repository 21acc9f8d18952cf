"""Tests of the launcher and the set-up code, without a network: what is complete is left alone, what is not is named."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from wanreel.host import FileLock

ROOT = Path(__file__).resolve().parents[1]
SHELL = shutil.which("sh")

posix_only = pytest.mark.skipif(os.name == "nt" or SHELL is None, reason="shell scripts")


@pytest.fixture
def setup_code(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules of scripts/setup, which import each other by their bare names."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "setup"))
    import console
    import environment
    import torch_build

    return {"console": console, "environment": environment, "torch_build": torch_build}


@pytest.fixture
def checkout(tmp_path: Path, setup_code: dict[str, ModuleType]) -> Path:
    """A checkout whose set-up is complete, with a `wanreel` that says how it was called."""
    root = tmp_path / "a checkout"
    root.mkdir()
    for name in ("launch.sh", "test.sh", "pyproject.toml"):
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "src", root / "src", ignore=shutil.ignore_patterns("__pycache__", "demo"))
    environment = setup_code["environment"].Environment(root)
    environment.scripts.mkdir(parents=True)
    environment.python.symlink_to(sys.executable)
    program = environment.scripts / "wanreel"
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$WANREEL_DATA_DIR" "$@"\nexit 7\n')
    program.chmod(0o755)
    stamp(setup_code, root)
    return root


def stamp(setup_code: dict[str, ModuleType], root: Path, *extras: str) -> None:
    environment = setup_code["environment"].Environment(root)
    gpu = setup_code["torch_build"].signs_of_gpu()
    made = setup_code["environment"].Stamp(environment.fingerprint(), str(root), list(extras), gpu, "torch 0")
    environment.write_stamp(made)


def start(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {name: value for name, value in os.environ.items() if not name.startswith("WANREEL_")} | variables
    command = [str(root / "launch.sh"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=given, check=False, timeout=60)


@posix_only
@pytest.mark.parametrize("script", ["launch.sh", "test.sh", "scripts/find_python.sh"])
def test_shell_scripts_parse(script: str) -> None:
    subprocess.run([str(SHELL), "-n", str(ROOT / script)], check=True)


@posix_only
@pytest.mark.parametrize("script", ["launch.sh", "test.sh", ".ci/run"])
def test_scripts_may_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


@posix_only
@pytest.mark.parametrize("script", ["launch.sh", "test.sh"])
def test_help_sets_nothing_up(script: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / script, tmp_path / script)
    found = subprocess.run([str(tmp_path / script), "--help"], capture_output=True, text=True, check=True)
    assert found.stdout.startswith(f"Usage: ./{script}")
    assert [path.name for path in tmp_path.iterdir()] == [script]


@posix_only
def test_arguments_status_and_data_directory_are_passed_on(checkout: Path) -> None:
    found = start(checkout, "generate", "a photo.jpg", 'it\'s "so" $HOME *', "", "--", "--json")
    assert found.stdout.splitlines() == [
        str(checkout),
        "generate",
        "a photo.jpg",
        'it\'s "so" $HOME *',
        "",
        "--",
        "--json",
    ]
    assert found.returncode == 7
    assert found.stderr == ""


@posix_only
def test_a_chosen_data_directory_stays(checkout: Path) -> None:
    assert start(checkout, "doctor", WANREEL_DATA_DIR="/elsewhere").stdout.splitlines() == ["/elsewhere", "doctor"]


@posix_only
@pytest.mark.parametrize(
    ("given", "passed_on"),
    [
        ((), ()),
        (("serve",), ()),
        (("--share", "--port", "8080"), ("--share", "--port", "8080")),
        (("serve", "--host", "0.0.0.0", "--no-open"), ("--host", "0.0.0.0", "--no-open")),
        (("--cache_dir", "my models", "--quiet"), ("--cache_dir", "my models", "--quiet")),
    ],
)
def test_no_command_means_the_page(
    checkout: Path, setup_code: dict[str, ModuleType], given: tuple[str, ...], passed_on: tuple[str, ...]
) -> None:
    stamp(setup_code, checkout, "ui")
    found = start(checkout, *given)
    assert found.stdout.splitlines()[1:] == ["serve", "--open", "--create-key", *passed_on]
    assert (found.returncode, found.stderr) == (7, "")


@posix_only
def test_the_page_needs_its_extra(checkout: Path) -> None:
    program = checkout / "scripts" / "setup" / "__main__.py"
    program.write_text('import sys; print(*sys.argv[1:], sep="|")')
    assert start(checkout, "--repair", "--share").stdout.startswith("--repair|--extras|ui|--|wanreel|serve|")
    assert start(checkout, "--quiet").stdout.startswith("--extras|ui|--quiet|--|wanreel|serve|")
    assert start(checkout, "doctor").stdout == "--|wanreel|doctor\n"
    assert start(checkout, "--server", "http://x", "jobs").stdout == "--|wanreel|--server|http://x|jobs\n"


@posix_only
def test_an_unfit_python_is_named_with_a_cure(checkout: Path) -> None:
    found = start(checkout, WANREEL_PYTHON="/bin/false")
    assert found.returncode == 1
    assert "WANREEL_PYTHON=/bin/false is no Python 3.11" in found.stderr
    assert "Cure:" in found.stderr


@posix_only
def test_no_python_at_all_is_named_with_a_cure(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "dirname").symlink_to(str(shutil.which("dirname")))
    found = start(checkout, PATH=str(bare))
    assert found.returncode == 1
    assert "No Python 3.11 or newer" in found.stderr
    assert "Cure:" in found.stderr


@posix_only
def test_of_two_starts_the_second_waits_for_the_first(checkout: Path, setup_code: dict[str, ModuleType]) -> None:
    (checkout / ".venv" / "wanreel-setup.json").unlink()
    first = FileLock(checkout / ".venv.lock")
    assert first.acquire()
    command = [str(checkout / "launch.sh"), "--version"]
    given = os.environ | {"WANREEL_PYTHON": sys.executable}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=given) as second:
        assert second.stderr is not None
        assert "waiting" in second.stderr.readline()
        time.sleep(0.1)
        assert second.poll() is None
        stamp(setup_code, checkout)
        first.release()
        assert second.wait(timeout=60) == 7
        assert second.stderr.read() == ""


@posix_only
@pytest.mark.parametrize("change", ["pyproject", "place", "extras", "nothing"])
def test_what_makes_a_set_up_stale(checkout: Path, change: str) -> None:
    """A stale one waits for the lock, which is held here; a complete one runs."""
    if change == "pyproject":
        with (checkout / "pyproject.toml").open("a") as file:
            file.write("\n# changed\n")
    if change == "place":
        checkout = checkout.rename(checkout.with_name("moved"))
    extras = "dev" if change == "extras" else ""
    lock = FileLock(checkout / ".venv.lock")
    assert lock.acquire()
    command = [sys.executable, "-I", str(checkout / "scripts/setup"), "--extras", extras, "--", "wanreel"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.kill()
    assert ("waiting" in line) is (change != "nothing")
    lock.release()


def test_an_incomplete_package_is_forgotten(tmp_path: Path, setup_code: dict[str, ModuleType]) -> None:
    names = {"whole": ["whole.py"], "part": ["part.py", "missing.py"]}
    for name, files in names.items():
        (tmp_path / f"{name}.py").touch()
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (folder / "RECORD").write_text("".join(f"{file},,\n" for file in files))
    (tmp_path / "begun-1.dist-info").mkdir()
    (tmp_path / "begun-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: begun\nVersion: 1\n")
    program = setup_code["environment"]._FIND_BROKEN.replace('sysconfig.get_path("purelib")', repr(str(tmp_path)))
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert sorted(Path(line).name for line in found.stdout.splitlines()) == ["begun-1.dist-info", "part-1.dist-info"]


class PipOfFact:
    """An environment whose pip reports what an index would give."""

    def __init__(self, requires: list[str] | None) -> None:
        self.root = ROOT
        self.requires = requires

    def answer(self, *arguments: str) -> str | None:
        if self.requires is None:
            return None
        report = {"install": [{"metadata": {"requires_dist": self.requires}}]}
        Path(arguments[arguments.index("--report") + 1]).write_text(json.dumps(report))
        return ""


CUDA_NEEDS = ["filelock", 'nvidia-cudnn-cu13==9.26.0.51; platform_system == "Linux"']


@pytest.mark.parametrize(
    ("system", "gpu", "requires", "expected"),
    [
        ("Linux", None, ["filelock"], ["torch==2.13.0", "cpu"]),
        ("Linux", None, CUDA_NEEDS, ["cpu"]),
        ("Linux", None, ["cuda-bindings<14"], ["cpu"]),
        ("Linux", None, None, ["cpu"]),
        ("Darwin", None, CUDA_NEEDS, ["torch>=2.9"]),
        ("Windows", None, CUDA_NEEDS, ["torch>=2.9"]),
        ("Linux", (13, 1), CUDA_NEEDS, ["torch>=2.9", "cu130"]),
        ("Linux", (12, 9), CUDA_NEEDS, ["cu128"]),
        ("Windows", (13, 0), CUDA_NEEDS, ["cu130"]),
        ("Linux", (11, 8), CUDA_NEEDS, []),
    ],
)
def test_which_torch_is_tried(
    system: str,
    gpu: tuple[int, int] | None,
    requires: list[str] | None,
    expected: list[str],
    setup_code: dict[str, ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = setup_code["torch_build"]
    monkeypatch.delenv("WANREEL_TORCH", raising=False)
    monkeypatch.setattr(build.platform, "system", lambda: system)
    found = build.Gpu(("NVIDIA Test",), gpu) if gpu else None
    tried = [arguments for _, arguments in build._sources(PipOfFact(requires), found, "torch>=2.9")]
    assert [part[1].rsplit("/", 1)[1] if len(part) > 1 else part[0] for part in tried] == expected


def test_a_named_torch_goes_first(setup_code: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANREEL_TORCH", "--index-url https://example.org/x torch==2.9.1")
    [(_, arguments)] = setup_code["torch_build"]._sources(PipOfFact(None), None, "torch>=2.9")
    assert arguments == ["--index-url", "https://example.org/x", "torch==2.9.1"]


def test_a_torch_that_works_is_never_replaced(
    setup_code: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    build = setup_code["torch_build"]
    there = build.Torch("2.9.0+cu128", "12.8", True)
    monkeypatch.setattr(build, "probe", lambda _python: there)
    environment = setup_code["environment"].Environment(ROOT)
    monkeypatch.setattr(environment, "run", lambda *_: pytest.fail("something was installed"))
    assert build.ensure(environment, None) is there


def test_versions_are_compared_as_numbers(setup_code: dict[str, ModuleType]) -> None:
    build = setup_code["torch_build"]
    assert build._release("2.13.0+cu130") > build._release("2.9.1") > build.oldest_allowed(ROOT) == (2, 9)


def test_torch_has_no_upper_bound_and_no_index() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [need for need in project["dependencies"] if need.startswith("torch")] == ["torch>=2.9"]
    assert {"ui", "s3", "postgres", "ray", "runpod", "quant", "dev"} <= set(project["optional-dependencies"])


def test_deep_results_become_a_table(tmp_path: Path) -> None:
    (tmp_path / "in.xml").write_text(
        '<testsuites><testsuite><testcase classname="tests.jobs" name="kills" time="12.34"><properties>'
        '<property name="kills" value="500"/></properties></testcase>'
        '<testcase classname="tests.jobs" name="power" time="1"><failure message="x"/></testcase></testsuite></testsuites>'
    )
    program = [
        sys.executable,
        str(ROOT / "scripts/deep_results.py"),
        str(tmp_path / "in.xml"),
        str(tmp_path / "out.md"),
    ]
    subprocess.run(program, check=True, capture_output=True)
    table = (tmp_path / "out.md").read_text()
    assert "| tests.jobs::kills | passed | 12.3 | kills = 500 |" in table
    assert "| tests.jobs::power | failure | 1.0 |  |" in table
