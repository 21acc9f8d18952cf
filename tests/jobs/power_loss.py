"""T2: what the disk may hold after a power loss, worked out from a trace of the product's own system calls.

The model is the pessimistic reading of POSIX. Bytes written to a file are safe after a sync of that file, and names
created or removed after a sync of the directory. Until then each single operation may have happened or not, in any
combination, and a write may have happened in part, in sectors of 512 bytes.
"""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 512
WORK = Path(__file__).with_name("power_work.py")
_CALLS = "openat,pwrite64,write,fsync,fdatasync,ftruncate,unlink,rename"
_LINE = re.compile(r"^\d+ +(?P<call>\w+)\((?P<args>.*)\) += (?P<result>-?\d+)(?P<opened><[^>]*>)?")
_DESCRIPTOR = re.compile(r"^\d+<(?P<path>[^>]*)>")
_STRING = re.compile(r'"(?P<text>[^"]*)"')


@dataclass(frozen=True)
class Write:
    inode: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class Truncate:
    inode: int
    size: int


@dataclass(frozen=True)
class Create:
    name: str
    inode: int


@dataclass(frozen=True)
class Unlink:
    name: str


@dataclass(frozen=True)
class Sync:
    inode: int


@dataclass(frozen=True)
class SyncDirectory:
    pass


@dataclass(frozen=True)
class Ack:
    text: str


Change = Write | Truncate | Create | Unlink
Operation = Change | Sync | SyncDirectory | Ack


@dataclass
class Disk:
    """Names and contents."""

    names: dict[str, int] = field(default_factory=dict[str, int])
    contents: dict[int, bytearray] = field(default_factory=dict[int, bytearray])

    def copy(self) -> Disk:
        return Disk(dict(self.names), {inode: bytearray(data) for inode, data in self.contents.items()})

    def apply(self, change: Change) -> None:
        if isinstance(change, Create):
            self.names[change.name] = change.inode
        elif isinstance(change, Unlink):
            self.names.pop(change.name, None)
        else:
            data = self.contents.setdefault(change.inode, bytearray())
            end = change.size if isinstance(change, Truncate) else change.offset + len(change.data)
            if len(data) < end:
                data.extend(bytes(end - len(data)))
            if isinstance(change, Truncate):
                del data[change.size :]
            else:
                data[change.offset : end] = change.data

    def files(self) -> dict[str, bytes]:
        return {name: bytes(self.contents.get(inode, b"")) for name, inode in self.names.items()}


def trace(folder: Path, jobs: int, journal_mode: str, synchronous: str) -> list[Operation]:
    """Run `power_work.py` under strace and return what it did to the files in FOLDER/data, with its acks."""
    (folder / "data").mkdir(parents=True)
    log = folder / "trace"
    command = [
        "strace",
        "-f",
        "-y",
        "-xx",
        "-s",
        "100000",
        "-e",
        "signal=none",
        "-e",
        f"trace={_CALLS}",
        "-o",
        str(log),
    ]
    command += [sys.executable, str(WORK), str(folder), str(jobs), journal_mode, synchronous]
    subprocess.run(command, check=True, timeout=120)
    return list(_operations(log, folder))


def _plain(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if "\\x" in text else text.encode()


class _Files:
    """Which name means which file. A number is never used for two files."""

    def __init__(self, folder: Path) -> None:
        self._prefix = f"{folder}/"
        self._inodes: dict[str, int] = {}
        self._count = 0

    def name(self, path: str) -> str | None:
        """The name within the folder, if the path is in it and what it means outlives a power loss."""
        rebuilt = path.endswith(("-shm", ".ballast"))
        return path.removeprefix(self._prefix) if path.startswith(self._prefix) and not rebuilt else None

    def inode(self, path: str) -> int | None:
        return self._inodes.get(self.name(path) or "")

    def open(self, path: str) -> Iterator[Operation]:
        name = self.name(path)
        if name and name not in self._inodes:
            self._count += 1
            self._inodes[name] = self._count
            yield Create(name, self._count)

    def unlink(self, path: str) -> Iterator[Operation]:
        name = self.name(path)
        if name and self._inodes.pop(name, None):
            yield Unlink(name)


def _operations(log: Path, folder: Path) -> Iterator[Operation]:
    files = _Files(folder / "data")
    for line in log.read_text().splitlines():
        match = _LINE.match(line)
        if match is None or match["result"].startswith("-"):
            assert "unfinished" not in line, line
            continue
        call, args = match["call"], match["args"]
        strings = [_plain(found) for found in _STRING.findall(args)]
        descriptor = _DESCRIPTOR.match(args)
        if call == "openat":
            yield from files.open(strings[0].decode()) if "O_CREAT" in args else ()
        elif call == "unlink":
            yield from files.unlink(strings[0].decode())
        elif descriptor is not None:
            path = _plain(descriptor["path"]).decode()
            yield from _descriptor_operation(call, args, path, strings, files, folder)


def _descriptor_operation(
    call: str, args: str, path: str, strings: list[bytes], files: _Files, folder: Path
) -> Iterator[Operation]:
    if path == str(folder / "data") and call in ("fsync", "fdatasync"):
        yield SyncDirectory()
    elif path == str(folder / "acks") and call == "write":
        yield Ack(strings[0].decode().strip())
    elif inode := files.inode(path):
        yield from _file_operation(call, args, inode, strings)


def _file_operation(call: str, args: str, inode: int, strings: list[bytes]) -> Iterator[Operation]:
    if call in ("fsync", "fdatasync"):
        yield Sync(inode)
    elif call == "ftruncate":
        yield Truncate(inode, int(args.rsplit(", ", 1)[1]))
    elif call == "pwrite64":
        yield Write(inode, int(args.rsplit(", ", 1)[1]), strings[0])
    else:
        raise AssertionError(f"{call} on a database file is not modelled")


def images(
    operations: list[Operation], chance: random.Random, subsets: int, shard: int = 0, shards: int = 1
) -> Iterator[tuple[dict[str, bytes], list[str]]]:
    """Every kind of disk content that a power loss may leave, each with the acks given before it."""
    safe, pending, acks, number = Disk(), list[Change](), list[str](), 0
    for operation in operations:
        if isinstance(operation, Ack):
            acks.append(operation.text)
        elif isinstance(operation, Sync):
            done = [c for c in pending if isinstance(c, Write | Truncate) and c.inode == operation.inode]
            pending = _settle(safe, pending, done)
        elif isinstance(operation, SyncDirectory):
            pending = _settle(safe, pending, [c for c in pending if isinstance(c, Create | Unlink)])
        else:
            pending.append(operation)
        for kept in _choices(pending, chance, subsets):
            number += 1
            if number % shards != shard:
                continue
            disk = safe.copy()
            for change in kept:
                disk.apply(change)
            yield disk.files(), list(acks)


def _settle(safe: Disk, pending: list[Change], done: Sequence[Change]) -> list[Change]:
    for change in done:
        safe.apply(change)
    settled = {id(change) for change in done}
    return [change for change in pending if id(change) not in settled]


def _choices(pending: list[Change], chance: random.Random, subsets: int) -> Iterator[list[Change]]:
    """Which of the unsafe changes happened: none, all, all but one, one alone, any half; and torn ones."""
    yield []
    if not pending:
        return
    yield list(pending)
    few = pending if len(pending) <= 6 else chance.sample(pending, 6)
    for change in few:
        yield [other for other in pending if other is not change]
        yield [change]
    for _ in range(subsets):
        yield [torn for change in pending if chance.random() < 0.5 for torn in _torn(change, chance)]
        yield [torn for change in pending for torn in _torn(change, chance)]


def _torn(change: Change, chance: random.Random) -> list[Change]:
    """The change, or some of its sectors."""
    if not isinstance(change, Write) or len(change.data) <= SECTOR or chance.random() < 0.5:
        return [change]
    starts = range(0, len(change.data), SECTOR)
    kept = [start for start in starts if chance.random() < 0.5]
    return [Write(change.inode, change.offset + start, change.data[start : start + SECTOR]) for start in kept]


def verdict(folder: Path, files: dict[str, bytes], acks: list[str]) -> str:
    """What is wrong with an image after SQLite recovered it: "", "corrupt: …" or "lost: …"."""
    for old in folder.iterdir():
        old.unlink()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return verdict_of(folder / "wanreel.db", acks)


def verdict_of(path: Path, acks: list[str]) -> str:
    """The same for a database where it lies."""
    if not path.exists():
        return "lost: the database" if acks else ""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        findings = connection.execute("PRAGMA integrity_check(1)").fetchall()
        if findings != [("ok",)]:
            return f"corrupt: {findings[0][0]}"
        if not acks:
            return ""
        rows = connection.execute("SELECT id, status, result_sha256, attempt FROM jobs").fetchall()
    except sqlite3.DatabaseError as exc:
        return f"corrupt: {exc}"
    finally:
        connection.close()
    found = {row[0]: row[1:] for row in rows}
    for ack in acks:
        if ack == "open":
            continue
        word, job_id = ack.split()
        status, sha256, attempt = found.get(job_id, ("missing", None, 0))
        if status == "missing" or (word == "claimed" and attempt < 1):
            return f"lost: {ack}"
        if word == "done" and (status, sha256) != ("completed", job_id[::-1]):
            return f"lost: {ack}"
    return ""
