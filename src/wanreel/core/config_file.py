"""The operator's config.toml: read, and changed without losing his comments. Knows no setting by name."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wanreel.core.errors import InsufficientStorage, SettingsError
from wanreel.host import replace_durably

CONFIG_NAME = "config.toml"


def read_config(path: Path) -> dict[str, Any]:
    """What the file says; nothing where there is none. Raises SettingsError."""
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise SettingsError(f"{path} can't be read: {exc}.", hint="Correct it or move it away.") from exc


def change_config(path: Path, changes: Mapping[str, str | int | float | bool | None]) -> None:
    """Set or, with None, remove values at the top of the file. The rest stays to the letter.

    The file is whole before and after, whenever the process is killed. Raises SettingsError, InsufficientStorage.
    """
    # A tenth of a second to import, which only a change should pay.
    import tomlkit

    read_config(path)  # a damaged file is left for its owner to look at
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    document = tomlkit.parse(text)
    for name, value in changes.items():
        if value is None:
            document.pop(name, None)
        else:
            document[name] = value
    temporary = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(tomlkit.dumps(document), encoding="utf-8")
        if path.is_file():
            temporary.chmod(path.stat().st_mode)
        replace_durably(temporary, path)
    except OSError as exc:
        raise InsufficientStorage(f"{path} can't be written: {exc.strerror}.") from exc
    finally:
        temporary.unlink(missing_ok=True)
