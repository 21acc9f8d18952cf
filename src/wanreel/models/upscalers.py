"""UpscalerShelf: the networks of this machine that enlarge pictures, by name. Imports no torch; knows no requests.

Each is a folder NAME of the shelf's folder with `config.json` and `model.safetensors`, as transformers keeps them.
"""

from __future__ import annotations

import builtins
import shutil
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from wanreel.core.errors import BrokenWeights, InsufficientStorage, InvalidRequest
from wanreel.core.upscaler import LANCZOS, NAME, UpscalerRef
from wanreel.models.json_object import read_json

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
KIND = "swin2sr"  #: model_type of the networks that are read
MARGIN = 32  #: px around a tile that are looked at too; windows divide it
_SCALES = (2, 3, 4, 8)
#: Heads of Swin2SR that give one picture, and the scales that they can.
_HEADS: Mapping[str, tuple[int, ...]] = {
    "pixelshuffle": _SCALES,
    "pixelshuffledirect": _SCALES,
    "nearest+conv": (4,),
}
_HINT = "`wanreel upscalers` lists those that are here; docs/finishing.md says where to get one."


class Digests(Protocol):
    """SHA-256 of files, remembered while they look untouched (storage.digests)."""

    def of(self, path: Path) -> str: ...


@dataclass(frozen=True)
class UpscalerShelf:
    """Finds, takes in and forgets them."""

    root: Path
    digests: Digests

    def names(self) -> tuple[str, ...]:
        """Every one that is whole, sorted."""
        try:
            folders = sorted(self.root.iterdir(), key=lambda path: path.name.lower())
        except (FileNotFoundError, NotADirectoryError):
            return ()
        return tuple(it.name for it in folders if NAME.fullmatch(it.name) and (it / WEIGHTS).is_file())

    def list(self) -> tuple[UpscalerRef, ...]:
        """Every one that can be used, by name."""
        found: builtins.list[UpscalerRef] = []
        for name in self.names():
            with suppress(BrokenWeights):
                found.append(self.get(name))
        return tuple(found)

    def folder(self, name: str) -> Path:
        """Where it lies. Raises InvalidRequest for one that is not here."""
        if NAME.fullmatch(name) is None:
            raise InvalidRequest.of(
                "upscaler", "bad_name", f"{ascii(name[:64])} is not the name of an upscaler.", _HINT
            )
        if name not in self.names():
            raise InvalidRequest.of("upscaler", "no_upscaler", f"there is no upscaler {name!r} here.", _HINT)
        return self.root / name

    def get(self, name: str) -> UpscalerRef:
        """What it is now. Raises InvalidRequest for one that is not here, BrokenWeights for one that can't be used."""
        return self._read(self.folder(name), name)

    def check(self, wanted: UpscalerRef) -> Path:
        """Its folder, where it is still what it was when the request was taken in. Raises BrokenWeights."""
        try:
            found = self.get(wanted.name)
        except InvalidRequest as error:
            raise BrokenWeights(
                f"Upscaler {wanted.name} is gone.", hint="Put it back, or export without it."
            ) from error
        if found != wanted:
            text = f"Upscaler {wanted.name} is another one than when the video was asked for."
            raise BrokenWeights(text, hint="Ask again to use what is there now.")
        return self.root / wanted.name

    def add(self, folder: Path, name: str | None = None) -> UpscalerRef:
        """Take in a copy. The same again changes nothing. Raises InvalidRequest, BrokenWeights, InsufficientStorage."""
        name = name or folder.resolve().name
        if NAME.fullmatch(name) is None or name == LANCZOS:
            raise InvalidRequest.of("name", "bad_name", f"{ascii(name[:64])} can't be the name of one.", "Give --name.")
        if not (folder / WEIGHTS).is_file():
            text = f"{folder} has no {WEIGHTS}."
            raise InvalidRequest.of("folder", "unreadable", text, f"It must hold {CONFIG} and {WEIGHTS}.")
        found = self._read(folder, name)
        if name in self.names():
            if self.get(name) != found:
                hint = "Choose another name, or remove that one first."
                raise InvalidRequest.of("name", "taken", f"there is another upscaler called {name}.", hint)
            return found
        self._copy(folder, name)
        return found

    def remove(self, name: str) -> None:
        """Forget one. Raises InvalidRequest."""
        shutil.rmtree(self.folder(name))

    def _copy(self, folder: Path, name: str) -> None:
        temporary = self.root / f".{uuid.uuid4().hex}.tmp"
        try:
            temporary.mkdir(parents=True)
            for file in (CONFIG, WEIGHTS):
                shutil.copyfile(folder / file, temporary / file)
            temporary.rename(self.root / name)
        except OSError as exc:
            raise InsufficientStorage(f"{self.root} can't be written: {exc.strerror}.") from exc
        finally:
            with suppress(OSError):
                shutil.rmtree(temporary)

    def _read(self, folder: Path, name: str) -> UpscalerRef:
        config: Mapping[str, Any] = read_json(folder / CONFIG)
        kind, scale, head = config.get("model_type"), config.get("upscale"), config.get("upsampler")
        if kind != KIND:
            raise BrokenWeights(f"{name} is {kind!r}, and not a {KIND} network.", hint=_HINT)
        if scale not in _HEADS.get(str(head), ()):
            raise BrokenWeights(f"{name} enlarges {scale!r} times by {head!r}, which is not used.", hint=_HINT)
        window = config.get("window_size")
        if not isinstance(window, int) or window < 1 or MARGIN % window:
            raise BrokenWeights(f"{name} has windows of {window!r} px, which is not used.", hint=_HINT)
        try:
            return UpscalerRef(name, scale, self.digests.of(folder / WEIGHTS), self.digests.of(folder / CONFIG))
        except OSError as exc:
            raise BrokenWeights(f"Upscaler {name} can't be read ({exc.strerror}).") from exc
