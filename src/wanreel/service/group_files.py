"""The files of a group's result, whatever its kind. Knows nothing of where they lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from wanreel.core.group import GroupCopy, GroupUpload
from wanreel.core.job import ArtifactRef
from wanreel.core.upload import UploadedFile, UploadReport, UploadState

FILM = "film"  #: kind of the one file that storyboards have


def result_files(copy: GroupCopy) -> tuple[ArtifactRef, ...]:
    """Those that its finisher recorded: several by kind, or one film."""
    result = cast("dict[str, Any]", json.loads(copy.result))
    files = cast("dict[str, dict[str, Any]]", result.get("files") or {FILM: result})
    return tuple(_file(kind, file) for kind, file in files.items())


def _file(kind: str, file: dict[str, Any]) -> ArtifactRef:
    size: int = file["bytes"] if "bytes" in file else file["size"]
    return ArtifactRef(kind, Path(file["name"]).name, file["sha256"], size, file["media_type"])


def upload_report(upload: GroupUpload | None) -> UploadReport | None:
    """How the copy fares, as it is told of a job's. None where the result stays here."""
    if upload is None:
        return None
    files = tuple(
        UploadedFile(file.kind, file.name, file.media_type, UploadState.DONE, file.bucket, file.key)
        for file in upload.files
    )
    state = UploadState(upload.state) if upload.state else UploadState.WAITING
    return UploadReport(state, upload.storage, upload.attempts, upload.outcome, files)
