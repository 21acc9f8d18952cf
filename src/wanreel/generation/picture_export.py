"""Pictures to files: names, recipes inside, a poster beside. Knows nothing of how the pixels came to be."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import wanreel
from wanreel.core.drawing import Drawing
from wanreel.core.errors import ExportFailed
from wanreel.core.picture_request import ResolvedPicture
from wanreel.media.recipe import MARK, recipe_metadata
from wanreel.media.stills import save_png
from wanreel.media.video import centre, write_poster
from wanreel.storage.disk import Blobs
from wanreel.storage.outputs import Reservation, reserve


@dataclass(frozen=True, slots=True)
class SheetTarget:
    """Where the picture to begin with comes from and the results go."""

    folder: Path
    pictures: Blobs
    stem: str | None = None  #: name without suffix that belongs to this work alone; None: time and prompt, a new one

    @contextmanager
    def open(self, request: ResolvedPicture) -> Generator[Sheet]:
        """The files of one request; whatever was written of them is deleted when the block ends by an error."""
        if self.stem is None:
            files = reserve(self.folder, datetime.now().astimezone(), request.prompt, ".png")
        else:
            self.folder.mkdir(parents=True, exist_ok=True)
            files = Reservation(self.folder / f"{self.stem}.png")
        sheet = Sheet(files, request)
        try:
            yield sheet
        except BaseException:
            sheet.discard()
            raise
        finally:
            files.partial.unlink(missing_ok=True)


@dataclass
class Sheet:
    """The pictures of one request on their way to the disk."""

    files: Reservation
    request: ResolvedPicture
    _written: list[tuple[Path, str, int]] = field(default_factory=list[tuple[Path, str, int]])

    def add(self, pixels: NDArray[np.uint8], number: int) -> None:
        """Write picture `number`, from 0, given as [h, w, 3]. Raises ExportFailed, InsufficientStorage."""
        request = self.request
        shown = centre(pixels, request.export_width, request.export_height)
        if number == 0:
            write_poster(self.files.poster, shown)
        path = self.files.path if number == 0 else self.files.path.with_suffix(f".{number + 1}.png")
        metadata = recipe_metadata(recipe_of(request, number), request.prompt) if request.metadata else None
        self._written.append((path, *save_png(path, shown, metadata)))

    def finish(self) -> Drawing:
        """All of them. Raises ExportFailed when there is none."""
        if not self._written:
            raise ExportFailed("There is no picture.")
        (_, sha256, size), request = self._written[0], self.request
        paths = tuple(path for path, _, _ in self._written)
        return Drawing(paths, self.files.poster, sha256, size, request.export_width, request.export_height, request)

    def discard(self) -> None:
        """Delete what was written."""
        for path in (*(path for path, _, _ in self._written), self.files.poster):
            path.unlink(missing_ok=True)


def recipe_of(request: ResolvedPicture, number: int) -> str:
    """The JSON text inside picture `number`, from which that one alone can be made again."""
    alone = replace(request, seed=request.seed + number, num_images=1)
    return json.dumps({MARK: wanreel.__version__, "request": alone.to_dict()}, ensure_ascii=False)
