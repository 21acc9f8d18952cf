"""Log lines as JSON, one a line, without secrets. Knows nothing of who writes them."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable

from wanreel.frontends.http.keys import PREFIX
from wanreel.frontends.webhooks import SECRET_PREFIX

_KEY = re.compile(rf"{re.escape(PREFIX)}[A-Za-z0-9_-]{{16,}}|{re.escape(SECRET_PREFIX)}[A-Za-z0-9+/=]{{16,}}")
#: User names and passwords in addresses.
_USER = re.compile(r"(?<=://)[^/\s@\"]{1,200}@")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}
_HIDDEN = "[hidden]"


class Scrubber:
    """Takes secrets out of text: what looks like one of our keys or signing secrets, or like a password in an address,
    and what it was told.
    """

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._secrets = tuple(secret for secret in secrets if secret)

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _USER.sub(f"{_HIDDEN}@", _KEY.sub(_HIDDEN, text))


class JsonLines(logging.Formatter):
    """One JSON object a line: no text, however it was made, can begin another line."""

    def __init__(self, scrub: Scrubber) -> None:
        super().__init__()
        self._scrub = scrub

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, object] = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        values |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            values["exception"] = self.formatException(record.exc_info)
        return self._scrub(json.dumps(values, ensure_ascii=False, default=str))


class PlainLines(logging.Formatter):
    """The same for people."""

    def __init__(self, scrub: Scrubber) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")
        self._scrub = scrub

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.name == "wanreel.access":
            facts = vars(record)
            text += f" {facts['method']} {facts['path']!r} {facts['status']} {facts['seconds']} s {facts['request_id']}"
        return self._scrub(text)


def log_to_stderr(scrub: Scrubber, *, as_json: bool, level: int) -> None:
    """Send this process's log lines to stderr, in one of the two forms."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines(scrub) if as_json else PlainLines(scrub))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("alembic", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
