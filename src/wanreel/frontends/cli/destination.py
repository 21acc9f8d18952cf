"""Destination: what --out of a video means, a folder for results or the one file. Knows nothing of how videos are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import click

from wanreel.core.errors import InsufficientStorage
from wanreel.core.request import OutputFormat
from wanreel.core.video import Video

_KINDS: tuple[str, ...] = get_args(OutputFormat)
#: Names of files that are never made here. Names with any other ending are folders.
_OTHERS = frozenset({"avi", "jpg", "jpeg", "m4v", "mkv", "mpeg", "mpg", "ogv", "png", "wmv"})

out_option = click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    help="The file, such as clip.mp4, which is replaced; or a folder. The data directory's outputs/ by default.",
)
far_out_option = click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    default=Path(),
    help="The file, such as clip.mp4, which is replaced; or a folder. This folder by default.",
)


@dataclass(frozen=True, slots=True)
class Destination:
    folder: Path | None  #: None: where results usually go
    file: Path | None = None  #: in it

    @classmethod
    def of(cls, out: Path | None, *, many: bool) -> Destination:
        """`many`: more than one video is to be made. Raises click.UsageError."""
        kind = "" if out is None else out.suffix.lower().removeprefix(".")
        if out is None or out.is_dir() or kind not in (*_KINDS, *_OTHERS):
            return cls(out)
        if kind in _OTHERS:
            raise click.UsageError(f"--out {out}: videos are {', '.join(f'.{it}' for it in _KINDS)}, not .{kind}.")
        if many:
            raise click.UsageError(f"--out {out} is one file, and more than one video is asked for: name a folder.")
        return cls(out.parent, out)

    def settle(self, asked: Mapping[str, object]) -> dict[str, object]:
        """The knobs that were asked for, and the kind of file that the name tells. Raises click.UsageError."""
        if self.file is None:
            return dict(asked)
        kind = self.file.suffix.lower().removeprefix(".")
        wanted = asked.get("output_format", kind)
        if wanted != kind:
            raise click.UsageError(
                f"--out {self.file} is a .{kind}, and --format says {wanted}: leave one of them out."
            )
        return {**asked, "output_format": kind}

    def path(self, usual: str) -> Path:
        """Where a finished video goes that else is called `usual`. Raises click.UsageError."""
        folder = self.folder or Path()
        folder.mkdir(parents=True, exist_ok=True)
        if self.file is None:
            return folder / usual
        kind = Path(usual).suffix
        if self.file.suffix.lower() != kind:
            raise click.UsageError(f"--out {self.file}: the video is a {kind}.")
        return self.file

    def take(self, video: Video) -> Video:
        """`video` under the name that was asked for, its pictures beside it. Raises InsufficientStorage."""
        if self.file is None:
            return video
        file, stem = self.file, video.path.stem
        moved = {
            path: file if path == video.path else file.with_name(file.stem + path.name.removeprefix(stem))
            for path in video.files().values()
        }
        try:
            for path, to in moved.items():
                path.replace(to)
        except OSError as exc:
            raise InsufficientStorage(f"{file} can't be written: {exc.strerror}. The video is {video.path}.") from exc
        return replace(
            video,
            path=file,
            last_frame=moved[video.last_frame],
            poster=moved[video.poster],
            keyframe=None if video.keyframe is None else moved[video.keyframe],
            handoffs={kind: moved[path] for kind, path in video.handoffs.items()},
        )
