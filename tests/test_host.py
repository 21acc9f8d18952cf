"""Tests of the operating-system calls: on the real file system, with real processes and real signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from wanreel import host
from wanreel.host import FileLock, files, machine, mounts

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@contextmanager
def holder(lock: Path) -> Generator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends or it is killed."""
    program = (
        "import sys; from pathlib import Path; from wanreel.host import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); print(lock.acquire(), flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "True"
        try:
            yield process
        finally:
            process.kill()


def test_lock_is_exclusive_between_processes_and_freed_by_kill(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    with holder(lock.path) as process:
        assert not lock.acquire()
        assert not lock.held
        process.kill()
        process.wait()
        assert lock.acquire()


def test_lock_is_exclusive_within_a_process_and_can_be_taken_again(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.release()
    first.release()
    assert second.acquire()
    assert not first.held
    second.release()


def test_lock_leaves_what_the_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("4711")
    lock = FileLock(path)
    assert lock.acquire()
    assert path.read_text() == "4711"
    lock.release()
    assert path.read_text() == "4711"


def test_lock_in_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        FileLock(tmp_path / "nowhere" / "lock").acquire()


def test_replace_durably_takes_the_old_file_s_place(tmp_path: Path) -> None:
    temporary, final = tmp_path / "new.tmp", tmp_path / "final"
    final.write_bytes(b"old")
    temporary.write_bytes(b"new")
    host.replace_durably(temporary, final)
    assert final.read_bytes() == b"new"
    assert not temporary.exists()


def test_replace_durably_syncs_the_file_then_renames_then_syncs_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noted(name: str) -> None:
        real = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *given: (calls.append(name), real(*given))[1])

    for name in ("fsync_file", "_rename", "fsync_directory"):
        noted(name)
    (tmp_path / "new.tmp").write_bytes(b"new")
    host.replace_durably(tmp_path / "new.tmp", tmp_path / "final")
    assert calls == ["fsync_file", "_rename", "fsync_directory"]


def test_a_failed_sync_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    temporary, final = tmp_path / "new.tmp", tmp_path / "final"
    final.write_bytes(b"old")
    temporary.write_bytes(b"new")
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        host.replace_durably(temporary, final)
    assert final.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such call")
def test_fsync_directory_refuses_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        host.fsync_directory(tmp_path / "file")
    host.fsync_directory(tmp_path)


def test_preallocate_takes_the_space(tmp_path: Path) -> None:
    path = tmp_path / "ballast"
    host.preallocate(path, 3 * 2**20 + 17)
    assert path.stat().st_size == 3 * 2**20 + 17
    if sys.platform != "win32":
        assert path.stat().st_blocks * 512 >= 3 * 2**20


def test_preallocate_keeps_a_longer_file(tmp_path: Path) -> None:
    path = tmp_path / "ballast"
    path.write_bytes(b"x" * 1000)
    host.preallocate(path, 10)
    assert path.read_bytes() == b"x" * 1000


@pytest.mark.skipif(sys.platform != "linux", reason="needs a size limit that every Linux process has")
def test_preallocate_says_when_there_is_no_room(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        host.preallocate(tmp_path / "ballast", 2**62)


def test_free_bytes_is_a_real_figure(tmp_path: Path) -> None:
    assert host.free_bytes(tmp_path) > 0
    with pytest.raises(FileNotFoundError):
        host.free_bytes(tmp_path / "nowhere")


MOUNTINFO = r"""
22 27 0:21 / / rw,relatime - ext4 /dev/vda rw
30 22 0:25 / /mnt/team\040disk rw,nosuid shared:1 master:2 - nfs4 server:/export rw
31 22 0:26 / /mnt/bucket rw - fuse.rclone remote: rw
32 22 0:27 / /mnt/windows rw - fuseblk /dev/sdb1 rw
33 22 0:28 / /mnt/bucket/cache rw - tmpfs tmpfs rw
34 22 0:29 / /mnt/plain rw - fuse mfs#server rw
35 22 0:30 / /covered rw - ext4 /dev/vdb rw
36 35 0:31 / /covered rw - cifs //server/share rw
"""


@posix_only
@pytest.mark.parametrize(
    ("path", "network"),
    [
        ("/home/me", False),
        ("/mnt/team disk", True),
        ("/mnt/team disk/videos", True),
        ("/mnt/team disks", False),
        ("/mnt/bucket/x", True),
        ("/mnt/bucket/cache/x", False),
        ("/mnt/windows/x", False),
        ("/mnt/plain", True),
        ("/covered/x", True),
    ],
)
def test_network_file_systems_are_told_by_their_mount(
    path: str, network: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Private, because no test can mount one.
    found = mounts._parse_mountinfo(MOUNTINFO)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(mounts, "_mounts", lambda: found)
    assert host.is_network_filesystem(Path(path)) is network


def test_a_path_that_does_not_exist_yet_has_a_file_system_too(tmp_path: Path) -> None:
    assert host.is_network_filesystem(tmp_path / "not" / "yet") is host.is_network_filesystem(tmp_path)


@pytest.fixture
def heeded() -> Generator[None]:
    """Whoever started the tests may ignore signals, as `nohup` and background jobs do."""
    former = {
        number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@posix_only
@pytest.mark.usefixtures("heeded")
def test_stop_signals_reach_the_callback_and_the_former_handlers_come_back() -> None:
    names: list[str] = []
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with host.stop_signals(names.append):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.raise_signal(number)
    assert names == ["SIGTERM", "SIGINT", "SIGHUP", "SIGTERM"]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@posix_only
def test_the_former_handlers_come_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ZeroDivisionError), host.stop_signals(print):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is before


@posix_only
def test_an_ignored_signal_stays_ignored() -> None:
    names: list[str] = []
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with host.stop_signals(names.append):
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert names == []


def test_stop_signals_do_nothing_outside_the_main_thread() -> None:
    before = signal.getsignal(signal.SIGTERM)
    entered: list[bool] = []

    def other_thread() -> None:
        with host.stop_signals(print):
            entered.append(signal.getsignal(signal.SIGTERM) == before)

    thread = threading.Thread(target=other_thread)
    thread.start()
    thread.join()
    assert entered == [True]


def group(folder: Path, limit: str, used: int, *, inactive: int = 0, version: int = 2) -> None:
    """A control group's memory files."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive}\n")


@pytest.mark.parametrize("version", [1, 2])
def test_memory_is_what_the_tightest_group_around_this_process_allows(tmp_path: Path, version: int) -> None:
    root, membership = tmp_path / "groups", tmp_path / "membership"
    top = root / "memory" if version == 1 else root
    membership.write_text("5:cpu:/a\n4:memory:/slice/job\n" if version == 1 else "0::/slice/job\n")
    none = "max" if version == 2 else str(2**63 - 4096)
    group(top, none, 9 * 2**30, version=version)
    group(top / "slice" / "job", none, 2**30, version=version)
    left = machine._container_memory  # pyright: ignore[reportPrivateUsage]
    assert left(root, membership) is None
    group(top / "slice", str(32 * 2**30), 3 * 2**30, inactive=2**30, version=version)
    assert left(root, membership) == 30 * 2**30
    group(top / "slice" / "job", str(8 * 2**30), 2**30, version=version)
    assert left(root, membership) == 7 * 2**30
    group(top / "other", str(2**30), 0, version=version)  # not ours
    assert left(root, membership) == 7 * 2**30


def test_inside_a_container_its_limit_is_the_root_s(tmp_path: Path) -> None:
    """There the file of memberships may name folders of the host that are not seen."""
    group(tmp_path, str(32 * 2**30), 2**30)
    for text in ("0::/", "0::/docker/abc", ""):
        (tmp_path / "membership").write_text(text)
        left = machine._container_memory  # pyright: ignore[reportPrivateUsage]
        assert left(tmp_path, tmp_path / "membership") == 31 * 2**30
    assert machine._container_memory(tmp_path / "no", tmp_path / "none") is None  # pyright: ignore[reportPrivateUsage]
