"""`wanreel serve` as it is started: ports, keys, sharing, what it says, and what it passes on to its workers."""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from rich.console import Console

from wanreel.core.errors import MissingDependency, RemoteError, SettingsError, WanreelError
from wanreel.core.settings import has_desktop, load_settings
from wanreel.frontends.cli import serve, welcome
from wanreel.frontends.cli.browser import Opener
from wanreel.frontends.cli.sharing import GradioTunnel, Sharing
from wanreel.frontends.cli.welcome import Greeter
from wanreel.frontends.http.entrance import Entrance, Shared
from wanreel.worker import supervisor
from wanreel.worker.arrangement import GpuChoice
from wanreel.worker.supervisor import worker_commands

#: What Gradio's tunnel does, without a network.
FAKE_GRADIO = """
CERTIFICATE_PATH = BINARY_URL = ""
BINARY_PATH = __file__
CHECKSUMS = {}
CURRENT_TUNNELS = []
class Tunnel:
    @staticmethod
    def download_binary(): pass
def setup_tunnel(host, port, token, server, certificate):
    assert host == "127.0.0.1" and len(token) >= 32
    return "https://made-up.gradio.live"
"""


class Started:
    """A `wanreel serve` and what it said."""

    def __init__(self, process: subprocess.Popen[str], lines: list[str]) -> None:
        self.process = process
        self.lines = lines

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match in what it said on stdout."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for line in list(self.lines):
                if found := re.search(pattern, line):
                    return found
            time.sleep(0.02)
        raise AssertionError(f"{pattern} not in {self.lines}, exit code {self.process.poll()}")


@contextlib.contextmanager
def started(data: Path, *options: str, **variables: str) -> Generator[Started]:
    environment = os.environ | {"WANREEL_DATA_DIR": str(data), "PYTHONUNBUFFERED": "1"} | variables
    command = [sys.executable, "-m", "wanreel", "serve", "--api-only", "--no-page", *options]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines: list[str] = []
    reading = threading.Thread(target=lambda: [lines.append(line) for line in iter(process.stdout.readline, "")])  # type: ignore[union-attr]
    reading.start()
    try:
        yield Started(process, lines)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            process.kill()
            reading.join()
            process.stdout.close()


def test_a_taken_port_is_said_and_the_next_one_used(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with started(tmp_path, "--server_port", str(port)) as server:
            used = int(server.wait_for(r"listens on http://127.0.0.1:(\d+)")[1])
            assert httpx.get(f"http://127.0.0.1:{used}/live").json() == {"status": "live"}
            said = server.wait_for(r"Port (\d+) is taken by another program; using (\d+) instead")
    assert port < used <= port + 20 and (int(said[1]), int(said[2])) == (port, used)


def test_behind_a_proxy_the_port_must_be_the_one_it_expects() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"127.0.0.1:{port} can't be listened on") as error:
            serve.bound(Entrance("127.0.0.1", port, "https://example.com"))
    assert "--port" in error.value.hint


def test_a_network_address_makes_a_key_and_a_link_in_one_command(tmp_path: Path) -> None:
    options = ("--host", "0.0.0.0", "--port", "0", "--create-key")
    with started(tmp_path, *options) as server:
        port = server.wait_for(r"listens on http://127.0.0.1:(\d+) \(every request needs an API key")[1]
        key = server.wait_for(r"A new API key, shown this once: (\S+)")[1]
        link = server.wait_for(r"Sign in: (\S+)")[1]
        here = f"http://127.0.0.1:{port}"
        assert link.startswith(f"{here}/sign-in/link/")
        assert httpx.get(f"{here}/v1/videos").status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{here}/v1/system", headers=headers).status_code == 200
        with httpx.Client(base_url=here, follow_redirects=True) as browser:
            path = link.removeprefix(here)
            assert browser.get(path).status_code == 200
            browser.post(path, headers={"Origin": here})
            assert browser.get("/v1/system").status_code == 200
        assert httpx.post(link, headers={"Origin": here}).status_code >= 400
    with started(tmp_path, *options) as again:
        again.wait_for("every request needs an API key")
        assert not any("new API key" in line for line in again.lines)
    assert key not in (tmp_path / "keys.json").read_text()


def test_sharing_admits_the_public_host_with_a_key(tmp_path: Path) -> None:
    package = tmp_path / "fake" / "gradio"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("networking", "tunneling"):
        (package / f"{name}.py").write_text(FAKE_GRADIO)
    with started(
        tmp_path / "data", "--share", "--create-key", "--port", "0", PYTHONPATH=str(tmp_path / "fake")
    ) as server:
        url = server.wait_for(r"listens on (\S+)")[1]
        key = server.wait_for(r"shown this once: (\S+)")[1]
        assert server.wait_for(r"Public address: (\S+)")[1] == "https://made-up.gradio.live"
        link = server.wait_for(r"Sign in from elsewhere: https://made-up.gradio.live(/sign-in/link/\S+)")[1]
        public = {"Host": "made-up.gradio.live"}
        assert httpx.get(f"{url}/live", headers=public).status_code == 200
        assert httpx.get(f"{url}/v1/videos", headers=public).status_code == 401
        assert httpx.get(f"{url}/live", headers={"Host": "other.gradio.live"}).status_code == 421
        origin = public | {"Origin": "https://made-up.gradio.live", "Authorization": f"Bearer {key}"}
        body = {"prompt": "x", "model": "demo"}
        assert httpx.post(f"{url}/v1/plan", headers=origin, json=body).status_code == 200
        foreign = origin | {"Origin": "https://other.gradio.live"}
        assert httpx.post(f"{url}/v1/plan", headers=foreign, json=body).status_code == 403
        assert httpx.get(f"{url}{link}", headers=public).status_code == 200


class NoTunnel:
    def open(self, port: int) -> str:
        raise RemoteError("No way out.")

    def close(self) -> None:
        raise AssertionError("it never opened")


def test_a_tunnel_that_does_not_open_is_said_and_nothing_else_changes() -> None:
    shared, said = Shared(), list[WanreelError]()
    with Sharing(NoTunnel(), 1, shared, lambda _: said.clear(), said.append) as sharing:
        sharing._thread.join(10)
    assert [error.message for error in said] == ["No way out."] and shared.url == ""
    assert Entrance(shared=shared).needs_key


def test_a_tunnel_is_closed_with_the_server() -> None:
    closed: list[bool] = []
    tunnel: Any = SimpleNamespace(open=lambda port: f"https://{port}.example/", close=lambda: closed.append(True))
    shared, opened = Shared(), list[str]()
    with Sharing(tunnel, 5, shared, opened.append, lambda _: None) as sharing:
        sharing._thread.join(10)
    assert (opened, shared.url, closed) == (["https://5.example"], "https://5.example", [True])


def test_another_program_than_gradio_names_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "frpc"
    program.write_bytes(b"something else")
    fake = SimpleNamespace(
        Tunnel=SimpleNamespace(download_binary=lambda: None),
        BINARY_PATH=str(program),
        BINARY_URL="url",
        CHECKSUMS={"url": "00"},
    )
    networking = SimpleNamespace(setup_tunnel=lambda *_: pytest.fail("it was run"))
    monkeypatch.setitem(sys.modules, "gradio", SimpleNamespace(tunneling=fake, networking=networking))
    with pytest.raises(RemoteError, match="is not the program that Gradio names"):
        GradioTunnel(tmp_path).open(1)


def test_without_gradio_sharing_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(MissingDependency, match="Sharing needs Gradio"):
        GradioTunnel(tmp_path).open(1)


def test_a_browser_opens_once_the_server_answers_and_only_on_a_desktop(monkeypatch: pytest.MonkeyPatch) -> None:
    ready, shown = threading.Event(), list[str]()
    with Opener(ready.is_set, lambda: "http://here/", shown.append, lambda: True) as opener:
        assert not shown
        ready.set()
        opener._thread.join(10)
    assert shown == ["http://here/"]
    with Opener(ready.is_set, lambda: "http://here/", shown.append, lambda: False):
        pass
    assert len(shown) == 1
    for name in ("SSH_CONNECTION", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert not has_desktop()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_desktop()
    monkeypatch.setenv("SSH_CONNECTION", "somewhere")
    assert not has_desktop()


def chosen(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[Any, Any, serve.Choices]:
    """What a command line means."""
    context = serve.serve.make_context("serve", list(arguments))
    return serve._chosen(context.params)


def test_the_seeds_names_of_options_mean_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path))
    folder = str(tmp_path / "weights")
    ours = ["--models-dir", folder, "--host", "0.0.0.0", "--port", "8080", "--auto-load", "--multi-gpu"]
    theirs = ["--cache_dir", folder, "--server_name", "0.0.0.0", "--server_port", "8080"]
    theirs += ["--auto_load_model", "--use_multi_gpu"]
    assert chosen(monkeypatch, *ours) == chosen(monkeypatch, *theirs)
    settings, http, choices = chosen(monkeypatch, *theirs)
    assert (http.host, http.port, settings.models_dir) == ("0.0.0.0", 8080, tmp_path / "weights")
    assert choices.worker_options == ("--quiet", "--models-dir", folder, "--auto-load", "default")
    monkeypatch.setenv("WANREEL_HTTP__HOST", "0.0.0.0")
    monkeypatch.setenv("WANREEL_AUTO_LOAD", "demo")
    assert chosen(monkeypatch, "--localhost")[1].host == "127.0.0.1"
    assert chosen(monkeypatch)[0].auto_load == "demo"
    assert chosen(monkeypatch, "--no-auto-load")[2].worker_options == ("--quiet", "--auto-load", "")
    assert chosen(monkeypatch, "--auto-load", "t2v-a14b")[0].auto_load == "t2v-a14b"
    assert not chosen(monkeypatch)[2].create_key, "keys are printed on terminals alone, unless asked for"


def test_workers_are_as_many_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "gpu_count", lambda: 0)
    assert list(worker_commands("auto", (), 3)) == ["auto#1", "auto#2", "auto#3"]
    assert list(worker_commands("auto")) == ["auto"]
    monkeypatch.setattr(supervisor, "gpu_count", lambda: 4)
    assert list(worker_commands("auto", (), 2)) == ["cuda:0", "cuda:1"]
    assert len(worker_commands("auto")) == 4
    with pytest.raises(SettingsError, match="5 workers need 5 GPUs, and there are 4"):
        worker_commands("auto", (), 5)
    with pytest.raises(SettingsError, match="there is 1"):
        worker_commands("cuda:1", (), 2)


@pytest.mark.parametrize("no_color", [False, True])
def test_the_banner_says_what_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA Test, 570.1, 20480, 81920'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=not no_color, color_system=None if no_color else "standard", width=150)
    settings = load_settings(data_dir=tmp_path, auto_load="demo", max_queue_size=7)
    Greeter(console=console).welcome(settings, Entrance(), "one on cpu")
    said = shown.getvalue()
    assert "NVIDIA Test, driver 570.1, 20.0 of 80.0 GiB free" in said
    assert "demo (built in)" in said and "one on cpu, loading demo" in said and "at most 7 jobs" in said
    assert str(tmp_path) in said and "torch" in said and "this machine only" in said
    assert ("\x1b[" in said) is not no_color


def test_a_driver_that_does_not_answer_holds_nothing_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(welcome, "_PATIENCE", 0.05)
    assert welcome.gpu_lines() == ["nvidia-smi does not answer (`wanreel doctor` says more)"]


def test_quiet_says_only_where_it_listens(tmp_path: Path) -> None:
    with started(tmp_path, "--port", "0", "--quiet") as server:
        url = server.wait_for(r"listens on (\S+)")[1]
        httpx.get(f"{url}/live")
    assert len(server.lines) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--multi-gpu"], "needs at least two, and this machine has none"),
        (["--multi-gpu", "--gpus", "0,7"], "there is no GPU 0: this machine has none"),
        (["--multi-gpu", "--gpus", "0,0"], "'0,0' is no list of GPUs"),
        (["--parallel", "cfg=3"], "there are two passes at most"),
        (["--parallel", "cfg=2,tensor=2"], "'tensor=2' is not understood"),
    ],
)
def test_gpus_that_can_t_share_a_video_are_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.setenv("WANREEL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SettingsError, match=said):
        serve.serve.invoke(serve.serve.make_context("serve", arguments))


def test_one_worker_for_all_gpus_or_one_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "gpu_count", lambda: 4)

    def commands(count: int | None = None, **choice: Any) -> Mapping[str, Sequence[str]]:
        return worker_commands("auto", ("--quiet",), count, GpuChoice(**choice))

    (label, command), *others = commands(multi_gpu=True).items()
    assert (label, others) == ("cuda:0,1,2,3", [])
    assert command[-7:] == ["--multi-gpu", "--parallel", "auto", "--device", "cuda:0", "--gpus", "0,1,2,3"]
    assert list(commands(multi_gpu=True, gpus="3,1")) == ["cuda:3,1"]
    each = commands(multi_gpu=True, parallel="each", gpus="1,2")
    assert list(each) == ["cuda:1", "cuda:2"] and all("--no-multi-gpu" in it for it in each.values())
    assert list(commands(gpus="2,3")) == ["cuda:2", "cuda:3"]
    assert list(worker_commands("cpu", (), None, GpuChoice(multi_gpu=True, parallel="cfg=2,ring=2"))) == ["cpu×4"]
    with pytest.raises(SettingsError, match="no GPU 4: this machine has 4, numbers 0 to 3"):
        commands(gpus="4")
    with pytest.raises(SettingsError, match="makes 3, and there are 4 GPUs"):
        commands(multi_gpu=True, parallel="cfg=1,ulysses=3,ring=1")
    with pytest.raises(SettingsError, match="2 workers can't have all GPUs"):
        commands(2, multi_gpu=True)
    with pytest.raises(SettingsError, match="named is 1"):
        commands(multi_gpu=True, gpus="2")
