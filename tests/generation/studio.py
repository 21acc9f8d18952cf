"""A pool of tiny models that make pictures, and a folder for what they make."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from PIL import Image

from wanreel.core.cancel import CancelToken
from wanreel.core.catalog import Catalog
from wanreel.core.drawing import Drawing
from wanreel.core.events import Drawn, Event
from wanreel.core.picture import PictureRef
from wanreel.core.picture_request import PictureRequest
from wanreel.core.picture_resolve import resolve_picture
from wanreel.core.placement import Placement
from wanreel.generation.draw import draw
from wanreel.generation.picture_export import SheetTarget
from wanreel.models.pool import ModelPool
from wanreel.storage.disk import BlobStore

Model = TypeVar("Model")


@dataclass
class Studio(Generic[Model]):
    """Draws with the models that `build` makes, each made once."""

    folder: Path
    build: Callable[[str], Model]  #: by name
    width: int  #: px of the picture that may be given
    asked: Mapping[str, Any]  #: by default; `model` is among it
    edits: bool = False  #: whether each picture is one that is given, changed
    models: dict[str, Model] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        self.blobs = BlobStore(self.folder / "pictures")
        self.pool = ModelPool(self._load)  # type: ignore[arg-type]
        noise = np.random.default_rng(0).integers(0, 255, (64, self.width, 3), dtype=np.uint8)
        self.picture = Image.fromarray(noise)
        data = io.BytesIO()
        self.picture.save(data, "PNG")
        self.given = PictureRef(self.blobs.put(data.getvalue()), self.width, 64)

    def _load(self, spec: Any, placement: Placement) -> Model:
        return self.model(spec.name)

    def model(self, name: str) -> Model:
        if name not in self.models:
            self.models[name] = self.build(name)
        return self.models[name]

    def events(self, cancel: CancelToken | None = None, stem: str = "picture", **asked: Any) -> list[Event]:
        edit = {"image": self.given, "mode": "edit"} if self.edits else {}
        values: dict[str, Any] = {**self.asked, **edit, **asked}
        resolution = resolve_picture(PictureRequest(**values), Catalog().picture, self.asked["model"])
        target = SheetTarget(self.folder / "out", self.blobs, stem)
        return list(draw(self.pool, resolution, target, cancel or CancelToken()))

    def drawing(self, **asked: Any) -> Drawing:
        last = self.events(**asked)[-1]
        assert isinstance(last, Drawn)
        return last.drawing


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(path))
