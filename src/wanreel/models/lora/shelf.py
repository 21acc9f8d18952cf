"""LoraShelf: the LoRA files of this machine by name, and what each is. Imports no torch; knows no requests.

A file lies in the shelf's folder as NAME.safetensors, or NAME.json says where else it lies. Requests carry names alone.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from wanreel import demo
from wanreel.core.errors import BrokenWeights, InsufficientStorage, InvalidRequest
from wanreel.core.lora import NAME, SUFFIX, Target, stem_of_pair, target_of
from wanreel.host import replace_durably
from wanreel.models.lora.file import MAX_BYTES, LoraFile, check_values, read_lora

_POINTER = ".json"
_CHUNK = 4 * 2**20  # bytes
_SUGGESTED = 3


class Digests(Protocol):
    """SHA-256 of files, remembered while they look untouched (storage.digests)."""

    def of(self, path: Path) -> str: ...
    def known(self, path: Path) -> str | None: ...
    def put(self, path: Path, sha256: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Shelved:
    """One LoRA on the shelf."""

    name: str
    path: Path
    builtin: bool = False  #: ships with Wanreel
    elsewhere: bool = False  #: used where it lies, outside the shelf's folder

    @property
    def target(self) -> Target:
        """Which expert its name says it is for."""
        return target_of(self.name)


@dataclass(frozen=True)
class LoraShelf:
    """Finds, takes in and forgets LoRA files."""

    root: Path
    digests: Digests
    builtin: Mapping[str, Path] = field(default_factory=demo.lora_paths)

    def list(self) -> tuple[Shelved, ...]:
        """Every one, by name. Names that could not be asked for are left out."""
        found = {name: Shelved(name, path, builtin=True) for name, path in self.builtin.items()}
        for path in self._files():
            shelved = self._shelved(path)
            if shelved is not None:
                found.setdefault(shelved.name, shelved)
        return tuple(found[name] for name in sorted(found, key=str.lower))

    def get(self, name: str) -> Shelved:
        """The LoRA called `name`, with or without ".safetensors". Raises InvalidRequest naming those nearest."""
        wanted = name.removesuffix(SUFFIX)
        if NAME.fullmatch(wanted) is None:
            raise _bad_name(wanted)
        if wanted in self.builtin:
            return Shelved(wanted, self.builtin[wanted], builtin=True)
        for ending in (SUFFIX, _POINTER):
            shelved = self._shelved(self.root / f"{wanted}{ending}")
            if shelved is not None:
                return shelved
        raise InvalidRequest.of("loras", "no_lora", f"there is no LoRA {wanted!r} here.", self._hint(wanted))

    def read(self, name: str) -> LoraFile:
        """Its header, judged. Raises InvalidRequest or BrokenWeights."""
        return read_lora(self.get(name).path)

    def sha256(self, shelved: Shelved) -> str:
        """Of the file as it is now. Raises BrokenWeights."""
        try:
            return self.digests.of(shelved.path)
        except OSError as exc:
            raise BrokenWeights(f"LoRA {shelved.name} can't be read ({exc.strerror}).") from exc

    def known_sha256(self, shelved: Shelved) -> str | None:
        """The same without reading the file; None where it was not read before."""
        return self.digests.known(shelved.path)

    def partner(self, shelved: Shelved) -> Shelved | None:
        """The file for the other expert, by its name."""
        if shelved.target == "both":
            return None
        other, stem = ("low" if shelved.target == "high" else "high"), stem_of_pair(shelved.name)
        return next((it for it in self.list() if it.target == other and stem_of_pair(it.name) == stem), None)

    # Taking in and forgetting

    def add(self, path: Path, name: str | None = None, *, keep: bool = False) -> Shelved:
        """Take in the file at `path`, whose every number is checked: a copy, or with `keep` used where it lies.

        The same file under the same name again changes nothing. Raises InvalidRequest, BrokenWeights,
        InsufficientStorage.
        """
        read_lora(path)
        check_values(path)
        name = self._free_name(name or name_for(path.name), self.digests.of(path))
        if self._has(name):
            return self.get(name)
        with _writing(self.root) as temporary:
            if keep:
                temporary.write_text(json.dumps({"path": str(path.resolve())}), encoding="utf-8")
                replace_durably(temporary, self.root / f"{name}{_POINTER}")
            else:
                with path.open("rb") as source, temporary.open("wb") as file:
                    _copy(source, file)
                replace_durably(temporary, self.root / f"{name}{SUFFIX}")
        return self.get(name)

    def take(self, source: BinaryIO, name: str) -> Shelved:
        """Take in what `source` gives, at most 4 GiB. Raises InvalidRequest, BrokenWeights, InsufficientStorage."""
        name = self._checked(name.removesuffix(SUFFIX))
        with _writing(self.root) as temporary:
            # The suffix of a LoRA, as it is judged by its name too.
            whole = temporary.with_suffix(SUFFIX)
            try:
                with whole.open("xb") as file:
                    sha256 = _copy(source, file)
                try:
                    read_lora(whole)
                    check_values(whole)
                except BrokenWeights as error:
                    raise BrokenWeights(error.message.replace(whole.name, name), hint=error.hint) from error
                name = self._free_name(name, sha256)
                if not self._has(name):
                    replace_durably(whole, self.root / f"{name}{SUFFIX}")
                    self.digests.put(self.root / f"{name}{SUFFIX}", sha256)
            finally:
                with suppress(OSError):
                    whole.unlink(missing_ok=True)
        return self.get(name)

    def remove(self, name: str) -> None:
        """Forget one. A file that is used where it lies stays there. Raises InvalidRequest."""
        shelved = self.get(name)
        if shelved.builtin:
            raise InvalidRequest.of("loras", "builtin", f"{shelved.name} ships with Wanreel.", "It can't be removed.")
        for ending in (SUFFIX, _POINTER):
            (self.root / f"{shelved.name}{ending}").unlink(missing_ok=True)

    # Inside

    def _files(self) -> Iterator[Path]:
        try:
            yield from sorted(path for path in self.root.iterdir() if path.suffix in (SUFFIX, _POINTER))
        except FileNotFoundError:
            return

    def _shelved(self, path: Path) -> Shelved | None:
        """The entry that `path` is, if it is one: a plain file in this very folder with a proper name."""
        name = path.name.removesuffix(path.suffix)
        inside = path.resolve().is_relative_to(self.root.resolve())
        if NAME.fullmatch(name) is None or path.is_symlink() or not path.is_file() or not inside:
            return None
        if path.suffix == SUFFIX:
            return Shelved(name, path)
        try:
            where = Path(cast("dict[str, str]", json.loads(path.read_text(encoding="utf-8")))["path"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Shelved(name, where, elsewhere=True) if where.is_absolute() else None

    def _has(self, name: str) -> bool:
        return name in self.builtin or any((self.root / f"{name}{end}").exists() for end in (SUFFIX, _POINTER))

    def _checked(self, name: str) -> str:
        if NAME.fullmatch(name) is None:
            raise _bad_name(name)
        return name

    def _free_name(self, name: str, sha256: str) -> str:
        """`name`, if it is free or holds this very file. Raises InvalidRequest."""
        if self._has(self._checked(name)) and self.sha256(self.get(name)) != sha256:
            hint = "Choose another name, or remove that one first."
            raise InvalidRequest.of("name", "taken", f"there is another LoRA called {name}.", hint)
        return name

    def _hint(self, wanted: str) -> str:
        from difflib import get_close_matches

        near = get_close_matches(wanted, [shelved.name for shelved in self.list()], n=_SUGGESTED, cutoff=0.4)
        if near:
            return f"Did you mean {' or '.join(near)}?"
        return "See `wanreel loras`; add one with `wanreel loras add FILE`."


def name_for(file_name: str) -> str:
    """A file's name as the name of a LoRA: what can't stand in one becomes "-"."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", file_name.removesuffix(SUFFIX)).strip("-._")
    return plain[:64] or "lora"


@contextmanager
def _writing(root: Path) -> Generator[Path]:
    """A temporary name in `root` that is free again afterwards. What the disk refuses is InsufficientStorage."""
    temporary = root / f".{uuid.uuid4().hex}.tmp"
    try:
        root.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as exc:
        raise InsufficientStorage(f"{root} can't be written: {exc.strerror}.") from exc
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _copy(source: BinaryIO, target: BinaryIO) -> str:
    """Copies and hashes; stops at the largest size allowed. Raises BrokenWeights, OSError."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        size += len(chunk)
        if size > MAX_BYTES:
            raise BrokenWeights(f"The file has more than {MAX_BYTES // 2**30} GiB.")
        digest.update(chunk)
        target.write(chunk)
    return digest.hexdigest()


def _bad_name(name: str) -> InvalidRequest:
    shown = ascii(name if len(name) <= 60 else name[:57] + "…")
    hint = "Letters, digits, dot, underscore and hyphen, at most 64, as `wanreel loras` lists them; never a path."
    return InvalidRequest.of("loras", "bad_name", f"{shown} is not the name of a LoRA.", hint)
