"""Registry: brings models' weights from the hub, keeps them pinned, finds damage, takes them away again.

Knows nothing of catalogues, devices or of how weights are loaded. Imports no torch.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wanreel.core.cancel import CancelToken
from wanreel.core.errors import (
    BrokenWeights,
    Cancelled,
    HubUnavailable,
    IllegalTransition,
    InsufficientStorage,
    ModelNotInstalled,
    WanreelError,
)
from wanreel.core.work import AnySpec
from wanreel.host import free_bytes
from wanreel.models.registry.contents import INDEX, wanted_files
from wanreel.models.registry.hub import Hub, HubFile
from wanreel.models.registry.pins import Pin, PinnedFile, Pins
from wanreel.models.registry.reception import LOOK, Digests, Reception
from wanreel.models.registry.state import Download, Progress

_BRANCH = "main"


@dataclass(frozen=True, slots=True)
class Fault:
    """One file that is not what it was when it was received."""

    path: str
    what: str  #: "is missing", "has changed", …

    def __str__(self) -> str:
        return f"{self.path} {self.what}"


@dataclass(frozen=True)
class Registry:
    """The models' folder and the hub that fills it. Each model lies in `root/NAME`, in Diffusers layout."""

    root: Path
    hub: Hub
    digests: Digests
    keep_free: int = 0  #: bytes of disk that no download may use

    @property
    def pins(self) -> Pins:
        return Pins(self.root)

    def folder(self, spec: AnySpec) -> Path:
        return self.root / spec.name

    # What is known without asking anybody

    def progress(self, spec: AnySpec) -> Progress | None:
        """The state of the model's download; None when there never was one."""
        return Download(self.root, spec.name).read() if spec.hub_id else None

    def progresses(self) -> Mapping[str, Progress]:
        """Of every model that was ever downloaded, by name."""
        found = {path.stem: Download(self.root, path.stem).read() for path in (self.root / ".downloads").glob("*.json")}
        return {name: progress for name, progress in found.items() if progress is not None}

    def is_complete(self, spec: AnySpec) -> bool:
        """Whether every pinned file is here, as far as names and sizes tell, and everything is pinned."""
        pin = self.pins.of(spec.name)
        return pin is not None and INDEX in pin.files and not self._missing(spec, pin)

    def size(self, spec: AnySpec) -> int | None:
        """Bytes of the model's files: of those pinned, or else as the hub lists them. None when it does not answer."""
        pin = self.pins.of(spec.name)
        if pin is not None and INDEX in pin.files:
            return pin.size
        hurried = replace(self.hub, silence=3.0)
        try:
            listing = hurried.listing(spec.hub_id or "", pin.commit if pin else _BRANCH, CancelToken(), patient=False)
            return sum(file.size for file in wanted_files(spec, listing.files))
        except HubUnavailable:
            return None

    # Pulling

    def pull(
        self, spec: AnySpec, cancel: CancelToken, only: Collection[str] = ()
    ) -> Generator[Progress, None, tuple[str, ...]]:
        """Bring the weights of `spec`, or its components `only`. Yields how far it is; returns what is to be noted.

        While another process downloads the same model this follows it. Raises HubUnavailable, InsufficientStorage,
        ModelNotInstalled, Cancelled (also when somebody ordered a pause). Closing the generator stops the download.
        """
        if spec.hub_id is None:
            raise ModelNotInstalled(f"{spec.name} has no repository to download it from.")
        download = Download(self.root, spec.name)
        lock = download.lock
        while not lock.acquire():
            yield download.read() or Progress("starting")
            cancel.wait(LOOK)
            cancel.check()
        try:
            download.clear_pause()
            return (yield from self._pull(spec, download, only, cancel))
        finally:
            lock.release()

    def pause(self, spec: AnySpec) -> None:
        """Ask whoever downloads `spec` to stop; what arrived is kept. Raises IllegalTransition when nobody does."""
        download = Download(self.root, spec.name)
        if not download.running():
            raise IllegalTransition(f"{spec.name} is not being downloaded.")
        download.order_pause()

    def _pull(
        self, spec: AnySpec, download: Download, only: Collection[str], cancel: CancelToken
    ) -> Generator[Progress, None, tuple[str, ...]]:
        kept = download.read() or Progress("starting")
        download.write(Progress("starting", kept.received_bytes, kept.total_bytes))
        try:
            yield Progress("starting")
            pin, notes = self._pin(spec, only, cancel)
            if pin is not None:
                missing = self._missing(spec, pin)
                self._check_room(download, pin, missing)
                reception = Reception(self.hub, self.digests, self.pins, download, pin, self.folder(spec))
                yield from reception.of(missing, cancel)
        except (Cancelled, GeneratorExit) as error:
            paused = isinstance(error, Cancelled) and download.pause_ordered
            self._stopped(download, Progress("paused" if paused else "interrupted"))
            raise
        except WanreelError as error:
            self._stopped(download, Progress("failed", message=str(error)))
            raise
        total = pin.size if pin is not None else kept.total_bytes
        done = Progress("complete", total, total)
        download.write(done)
        shutil.rmtree(download.parts, ignore_errors=True)
        yield done
        return notes

    def _stopped(self, download: Download, progress: Progress) -> None:
        last = download.read() or progress
        download.write(replace(progress, received_bytes=last.received_bytes, total_bytes=last.total_bytes))
        download.clear_pause()

    def _pin(self, spec: AnySpec, only: Collection[str], cancel: CancelToken) -> tuple[Pin | None, tuple[str, ...]]:
        """What is to be received, written down before the first byte. None when a verified copy has to do."""
        pin = self.pins.of(spec.name)
        repo = spec.hub_id or ""
        try:
            listing = self.hub.listing(repo, pin.commit if pin else _BRANCH, cancel)
        except HubUnavailable as error:
            if pin is None or not (self.is_complete(spec) or only):
                raise
            self.check(spec)
            return None, (f"{error.message} The verified copy of {repo} at {pin.commit[:12]} is used.",)
        known = pin.files if pin is not None and pin.repo == repo else {}
        files = {
            file.path: _pinned(file, known.get(file.path)) for file in wanted_files(spec, listing.files, tuple(only))
        }
        changed = [path for path in files.keys() & known.keys() if files[path].blob != known[path].blob]
        if changed:
            raise HubUnavailable(
                f"{self.hub.address} lists another {sorted(changed)[0]} for {repo} at {listing.commit[:12]} than before.",
                hint="A commit's files never change: don't trust this hub or mirror.",
            )
        pin = Pin(repo, listing.commit, dict(known) | files)
        self.pins.put(spec.name, pin)
        return Pin(repo, listing.commit, files), ()

    def _missing(self, spec: AnySpec, pin: Pin) -> list[str]:
        """Pinned files that are not here whole, smallest first."""
        folder = self.folder(spec)
        absent = [path for path, file in pin.files.items() if not self._is_here(folder / path, file)]
        return sorted(absent, key=lambda path: pin.files[path].size)

    def _is_here(self, path: Path, file: PinnedFile) -> bool:
        try:
            return file.sha256 is not None and path.stat().st_size == file.size and self._as_received(path, file)
        except OSError:
            return False

    def _as_received(self, path: Path, file: PinnedFile) -> bool:
        known = self.digests.known(path)
        return known is None or known == file.sha256

    def _check_room(self, download: Download, pin: Pin, missing: list[str]) -> None:
        """Raises InsufficientStorage before a byte is asked for."""
        self.root.mkdir(parents=True, exist_ok=True)
        there = sum(path.stat().st_size for path in download.parts.glob("*.part"))
        needed = sum(pin.files[path].size for path in missing) - there
        free = free_bytes(self.root) - self.keep_free
        if needed > free:
            raise InsufficientStorage(
                f"{download.model} needs {needed / 1e9:.1f} GB more in {self.root}, and {max(0, free) / 1e9:.1f} GB are free.",
                hint="Free some space, or set `models_dir` to a larger disk.",
            )

    # Checking

    def check(self, spec: AnySpec) -> None:
        """Before the model is used: that every pinned file is what was received. Raises BrokenWeights naming each.

        Files that look untouched since they were hashed are not read again; others are.
        """
        faults = self.faults(spec, CancelToken(), thorough=False)
        if faults:
            raise BrokenWeights(
                f"The weights of {spec.name} are damaged: {'; '.join(str(fault) for fault in faults)}.",
                hint=f"`wanreel models pull {spec.name}` brings those files again.",
            )

    def check_paths(self, paths: Iterable[Path]) -> None:
        """The same for files of whatever models; those that were not downloaded are passed over."""
        pins, found = self.pins.all(), list[Fault]()
        for path in paths:
            model, _, inner = (
                path.relative_to(self.root).as_posix().partition("/") if self._owns(path) else ("", "", "")
            )
            file = pins[model].files.get(inner) if model in pins else None
            what = self._fault(path, file, thorough=False) if file is not None else ""
            found += [Fault(f"{model}/{inner}", what)] if what else []
        if found:
            raise BrokenWeights(
                f"Weights are damaged: {'; '.join(str(fault) for fault in found)}.",
                hint="`wanreel models pull MODEL` brings those files again.",
            )

    def _owns(self, path: Path) -> bool:
        return path.is_relative_to(self.root)

    def faults(self, spec: AnySpec, cancel: CancelToken, *, thorough: bool = True) -> tuple[Fault, ...]:
        """What is wrong with the pinned files that are here; `thorough` reads every byte."""
        pin = self.pins.of(spec.name)
        found: list[Fault] = []
        for path, file in sorted(pin.files.items()) if pin is not None else ():
            cancel.check()
            what = self._fault(self.folder(spec) / path, file, thorough=thorough)
            if what:
                found.append(Fault(f"{spec.name}/{path}", what))
        return tuple(found)

    def verify(self, spec: AnySpec, cancel: CancelToken) -> Generator[Progress, None, tuple[Fault, ...]]:
        """Read every pinned byte, yielding how far it is; returns what is wrong. Raises ModelNotInstalled, Cancelled,
        IllegalTransition while the model is downloaded."""
        pin = self.pins.of(spec.name)
        if pin is None:
            raise ModelNotInstalled(
                f"{spec.name} was not downloaded by Wanreel: there is nothing to compare its files with."
            )
        download = Download(self.root, spec.name)
        before, lock = download.read(), download.lock
        if not lock.acquire():
            raise IllegalTransition(f"{spec.name} is being downloaded or verified.")
        outcome = before or Progress("complete", pin.size, pin.size)
        try:
            found, read = list[Fault](), 0
            for path, file in sorted(pin.files.items()):
                cancel.check()
                progress = Progress("verifying", read, pin.size, path)
                download.write(progress)
                yield progress
                what = self._fault(self.folder(spec) / path, file, thorough=True)
                found += [Fault(f"{spec.name}/{path}", what)] if what else []
                read += file.size
            told = "; ".join(str(fault) for fault in found)
            outcome = Progress("damaged" if found else "complete", read, pin.size, message=told)
            return tuple(found)
        finally:
            download.write(outcome)
            lock.release()

    def _fault(self, path: Path, file: PinnedFile, *, thorough: bool) -> str:
        try:
            size = path.stat().st_size
            if size != file.size:
                return f"has {size} bytes instead of {file.size}"
            sha256 = self.digests.fresh(path) if thorough else self.digests.of(path)
        except FileNotFoundError:
            return "is missing"
        except OSError as exc:
            return f"can't be read ({exc.strerror})"
        if file.sha256 is None:
            return "was never received whole"
        return "" if sha256 == file.sha256 else "has changed since it was received"

    # Removing

    def remove(self, spec: AnySpec) -> int:
        """Delete the model's files, pins and parts. Returns the bytes freed. Raises IllegalTransition while it is
        downloaded, ModelNotInstalled when there is nothing."""
        download = Download(self.root, spec.name)
        lock = download.lock
        if not lock.acquire():
            raise IllegalTransition(f"{spec.name} is being downloaded.", hint="Pause that first.")
        try:
            places = [place for place in (self.folder(spec), download.parts) if place.is_dir()]
            if not places and self.pins.of(spec.name) is None:
                raise ModelNotInstalled(f"There are no files of {spec.name} in {self.root}.")
            freed = sum(path.stat().st_size for place in places for path in place.rglob("*") if path.is_file())
            # First the file that makes it look installed: what is left after a crash is then only waste.
            (self.folder(spec) / INDEX).unlink(missing_ok=True)
            self.pins.forget(spec.name)
            for place in places:
                shutil.rmtree(place)
            download.forget()
        except OSError as exc:
            raise InsufficientStorage(f"{exc.filename} can't be deleted: {exc.strerror}.") from exc
        finally:
            lock.release()
        return freed


def _pinned(file: HubFile, before: PinnedFile | None) -> PinnedFile:
    sha256 = file.sha256 or (before.sha256 if before is not None else None)
    return PinnedFile(file.size, file.blob, sha256)
