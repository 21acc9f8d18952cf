"""A folder of a model that makes pictures, judged before a weight is read. Loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from wanreel.core.errors import BrokenWeights
from wanreel.core.picture_models import PictureSpec
from wanreel.models.folder import INDEX_NAME, read_json

#: What the configuration of each part has to say.
Facts = Mapping[str, Mapping[str, object]]


def check_picture_folder(spec: PictureSpec, folder: Path, facts: Facts) -> None:
    """Raises BrokenWeights naming all that is missing or of another architecture, by names and configurations."""
    faults = list(_faults(spec, folder, facts))
    if faults:
        hint = f"`wanreel models pull {spec.name}` brings it." if spec.hub_id else ""
        raise BrokenWeights(f"{folder} does not hold {spec.name}: {'; '.join(faults)}.", hint=hint)


def _faults(spec: PictureSpec, folder: Path, facts: Facts) -> Iterator[str]:
    if not (folder / INDEX_NAME).is_file():
        yield f"{INDEX_NAME} is missing"
    for name in spec.components:
        if not (folder / name).is_dir():
            yield f"{name}/ is missing"
    for part, expected in facts.items():
        try:
            config = read_json(folder / part / "config.json")
        except BrokenWeights as error:
            yield error.message
            continue
        for key, value in expected.items():
            if config.get(key) != value:
                yield f"{part} has {key}={config.get(key)}, {spec.name} has {value}"
