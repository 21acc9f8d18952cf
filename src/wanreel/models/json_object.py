"""JSON objects beside weights. Imports no torch; knows nothing of what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from wanreel.core.errors import BrokenWeights


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises BrokenWeights if it is missing or is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BrokenWeights(f"{path.parent.name}/{path.name} is missing") from error
    except (OSError, ValueError) as error:
        raise BrokenWeights(f"{path.parent.name}/{path.name} can't be read ({error})") from error
    if not isinstance(data, dict):
        raise BrokenWeights(f"{path.parent.name}/{path.name} is not a JSON object")
    return {str(key): value for key, value in data.items()}  # pyright: ignore[reportUnknownVariableType]
