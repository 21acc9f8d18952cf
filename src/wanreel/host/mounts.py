"""Which file systems lie on another machine."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path

#: File system types whose files lie on another machine. Any FUSE type counts too, but for `_LOCAL_FUSE`.
_NETWORK_TYPES = frozenset(
    ("9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2")
    + ("orangefs", "panfs", "pvfs2", "smb3", "smbfs", "webdav")
)
_LOCAL_FUSE = frozenset(
    ("fuseblk", "fuse.bindfs", "fuse.fuse-overlayfs", "fuse.gocryptfs", "fuse.lxcfs", "fuse.ntfs-3g", "fuse.portal")
)


def is_network_filesystem(path: Path) -> bool:
    """Whether `path` lies on another machine, as far as the system tells. False where it doesn't tell."""
    if sys.platform == "win32":
        return _is_remote_drive(path.resolve())
    found = _filesystem_type(path.resolve(), _mounts())
    return found in _NETWORK_TYPES or (found.startswith("fuse") and found not in _LOCAL_FUSE)


def _filesystem_type(path: Path, mounts: list[tuple[str, str]]) -> str:
    """The type of the mount that holds `path`; of several mounted on one place the last covers the others."""
    holding = [mount for mount in mounts if path == Path(mount[0]) or Path(mount[0]) in path.parents]
    longest = max((len(point) for point, _ in holding), default=0)
    return next((kind for point, kind in reversed(holding) if len(point) == longest), "")


def _parse_mountinfo(text: str) -> list[tuple[str, str]]:
    """(mount point, type) of each line of /proc/self/mountinfo (proc(5)): the type follows a lone hyphen."""
    parts = [line.partition(" - ") for line in text.splitlines()]
    return [(_unescape(before.split()[4]), after.split()[0]) for before, _, after in parts if after]


def _unescape(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


if sys.platform == "win32":
    import ctypes

    _DRIVE_REMOTE = 4

    def _is_remote_drive(path: Path) -> bool:
        if path.drive.startswith("\\\\"):
            return True
        return ctypes.windll.kernel32.GetDriveTypeW(path.anchor) == _DRIVE_REMOTE

else:

    def _mounts() -> list[tuple[str, str]]:
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                return _parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace"))
            return []
        with contextlib.suppress(OSError):
            listed = subprocess.run(["/sbin/mount"], capture_output=True, text=True, check=False).stdout
            return re.findall(r"^.+? on (.+) \((\w+)", listed, flags=re.MULTILINE)
        return []
