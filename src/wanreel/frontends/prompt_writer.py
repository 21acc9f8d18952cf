"""PromptWriter: a language model that writes prompts better, behind an OpenAI-compatible address of the operator's.

Asked through the Fetcher, so that one address is called and nothing else. Knows nothing of requests or rules of prompts.
"""

from __future__ import annotations

import base64
import io
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wanreel.core.errors import RemoteError, SettingsError
from wanreel.core.settings_groups import PromptHelpSettings
from wanreel.frontends.addresses import Denied, Rules, origins_of
from wanreel.frontends.fetcher import Fetcher
from wanreel.host import start_piped
from wanreel.media.pictures import open_picture

_ORIGIN = re.compile(r"(https?://[^/\s]+)", re.IGNORECASE)
_LARGEST = 2**20  # bytes of an answer
_MOST_TOKENS = 1024  #: of an answer
_SIDE = 768  # px of the picture that is shown


@dataclass(frozen=True, slots=True)
class PromptWriter:
    """Asks one model at one address."""

    url: str
    model: str
    key: str
    seconds: float
    sees: bool  #: whether it takes pictures
    fetcher: Fetcher

    def write(self, told: str, prompt: str, png: bytes | None = None) -> str:
        """Its answer to `prompt`, told what to do. Raises RemoteError whatever goes wrong, saying what, but no address."""
        content: Any = prompt
        if png is not None and self.sees:
            content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": _shown(png)}}]
        asked = {
            "model": self.model,
            "messages": [{"role": "system", "content": told}, {"role": "user", "content": content}],
            "max_tokens": _MOST_TOKENS,
            "temperature": 0.3,
            "seed": 0,
            "stream": False,
        }
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        status, body = self.fetcher.ask(self.url, headers, json.dumps(asked).encode(), self.seconds, _LARGEST)
        if status != 200:
            raise RemoteError(f"The language model's server answered {status}.")
        return _answer(body)


@dataclass(frozen=True, slots=True)
class LocalWriter:
    """Asks a model in a local folder, in a process that ends with the answer: see models/chat.py."""

    folder: Path
    device: str
    seconds: float

    @property
    def sees(self) -> bool:
        """Whether the model is of the kind that is shown pictures."""
        try:
            return json.loads((self.folder / "config.json").read_bytes()).get("model_type") == "qwen2_5_vl"
        except (OSError, ValueError, AttributeError):
            return False

    def write(self, told: str, prompt: str, png: bytes | None = None) -> str:
        """Its answer. Raises RemoteError whatever goes wrong, saying what."""
        shown = base64.b64encode(png).decode() if png is not None and self.sees else ""
        asked = {"folder": str(self.folder), "device": self.device, "told": told, "prompt": prompt, "png": shown}
        with start_piped([sys.executable, "-m", "wanreel.models.chat"]) as process:
            try:
                out, _ = process.communicate(json.dumps(asked).encode(), timeout=self.seconds)
            except subprocess.TimeoutExpired as exc:
                raise RemoteError(f"The language model gave no answer within {self.seconds:g} s.") from exc
            finally:
                if process.poll() is None:
                    process.kill()
        try:
            found = json.loads(out)
        except ValueError as exc:
            raise RemoteError("The language model's process ended without an answer.") from exc
        if "error" in found:
            raise RemoteError(f"The language model can't be used: {found['error']}")
        return str(found["answer"])


def build_writer(settings: PromptHelpSettings) -> PromptWriter | LocalWriter | None:
    """The operator's language model; None where there is none. Raises SettingsError."""
    if settings.folder is not None:
        if settings.url:
            raise SettingsError("prompt_help has a url and a folder.", hint="Leave one of them out.")
        return LocalWriter(settings.folder, settings.device, settings.seconds)
    if not settings.url:
        return None
    base = settings.url.rstrip("/")
    origin = _ORIGIN.match(base)
    try:
        if origin is None:
            raise Denied("no address")
        rules = Rules(private_origins=origins_of((origin.group(1),)))
    except Denied as exc:
        raise SettingsError("prompt_help.url is no address.", hint="Write it as http://127.0.0.1:11434/v1.") from exc
    if not settings.model:
        raise SettingsError("prompt_help.url needs prompt_help.model.", hint="Name the model that is served there.")
    key = settings.key.get_secret_value() if settings.key else ""
    url = f"{base}/chat/completions"
    return PromptWriter(url, settings.model, key, settings.seconds, settings.sees, Fetcher(rules))


def _shown(png: bytes) -> str:
    """The picture, small, as a data: URL."""
    picture, data = open_picture(png), io.BytesIO()
    picture.thumbnail((_SIDE, _SIDE))
    picture.save(data, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()


def _answer(body: bytes) -> str:
    try:
        found: Mapping[str, Any] = json.loads(body)
        text = found["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError) as exc:
        raise RemoteError("The language model's server answered what is no chat completion.") from exc
    if not isinstance(text, str):
        raise RemoteError("The language model's server answered no text.")
    return text
