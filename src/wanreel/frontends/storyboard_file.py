"""A storyboard's file, YAML or JSON: its values and the line of each. Knows nothing of what they mean.

JSON is YAML too, so one reader serves both, and both have lines. Nothing but plain values is built: no tag makes an object.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import yaml

from wanreel.core.errors import InvalidRequest

MAX_BYTES = 2**20
_DEEPEST = 8

Path_ = tuple[str | int, ...]


@dataclass(frozen=True)
class StoryboardFile:
    """What stands in it."""

    values: Any
    lines: Mapping[Path_, int]  #: from 1, by where a value stands: ("scenes", 2, "seconds")


def read_storyboard_file(path: Path) -> StoryboardFile:
    """Raises InvalidRequest naming the line of what is no YAML or JSON."""
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise InvalidRequest.of("storyboard", "unreadable", f"{path} can't be read: {exc.strerror}.") from exc
    if len(data) > MAX_BYTES:
        raise InvalidRequest.of("storyboard", "too_large", f"{path.name} has more than {MAX_BYTES // 2**20} MiB.")
    return parse_text(data, path.name)


def parse_text(data: bytes | str, name: str = "the storyboard") -> StoryboardFile:
    """The same of its bytes."""
    try:
        node = yaml.compose(data, Loader=yaml.SafeLoader)
        reader = _Reader()
        return StoryboardFile(None if node is None else reader.value(node, ()), reader.lines)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        text = f"{where}{name} is neither YAML nor JSON: {exc.problem or 'it can not be read'}."
        raise InvalidRequest.of("storyboard", "bad_file", text) from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidRequest.of("storyboard", "bad_file", f"{name} is neither YAML nor JSON.") from exc


#: What clients send that give one picture for the whole: the first scene starts from it.
_FIRST = ("reference_image", "image", "init_image", "image_base64", "image_url")


def with_first_picture(values: Mapping[str, object]) -> dict[str, object]:
    """A storyboard as simple clients send it: with a `mode`, and one picture beside the scenes."""
    given = dict(values)
    given.pop("mode", None)
    found = [given.pop(name) for name in _FIRST if given.get(name) is not None]
    scenes = given.get("scenes")
    if found and isinstance(scenes, list) and scenes and isinstance(scenes[0], Mapping):
        first = {"keyframe": found[0], **cast("dict[str, object]", scenes[0])}
        given["scenes"] = [first, *cast("list[object]", scenes[1:])]
    return given


@dataclass
class _Reader:
    """Values of nodes, and their lines."""

    lines: dict[Path_, int] = field(default_factory=dict[Path_, int])

    def value(self, node: Any, at: Path_) -> Any:
        if len(at) > _DEEPEST:
            raise ValueError("too deep")
        self.lines[at] = node.start_mark.line + 1
        plain = {yaml.MappingNode: "map", yaml.SequenceNode: "seq"}.get(type(node))
        if plain is not None and node.tag != f"tag:yaml.org,2002:{plain}":
            raise yaml.MarkedYAMLError(problem=f"the tag {node.tag!r} is not taken", problem_mark=node.start_mark)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, at)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*at, n)) for n, item in enumerate(node.value)]
        return yaml.SafeLoader("").construct_object(node)

    def _mapping(self, node: Any, at: Path_) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = yaml.SafeLoader("").construct_object(key_node)
            if not isinstance(key, Hashable) or str(key) in made:
                mark = key_node.start_mark
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands there twice", problem_mark=mark)
            made[str(key)] = self.value(value_node, (*at, str(key)))
            self.lines[(*at, str(key))] = key_node.start_mark.line + 1
        return made
