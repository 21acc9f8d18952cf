"""Failpoints: named places where a test may kill the process or ask it to stop. Knows nothing of what happens there."""

from __future__ import annotations

import os
import re
import signal

from wanreel.core.errors import SettingsError

_RULE = re.compile(r"(?P<name>[a-z0-9_.]+):(?P<deed>kill|term)(?:@(?P<hit>[1-9][0-9]*))?")
_SIGNALS = {"kill": "SIGKILL", "term": "SIGTERM"}  # by name: Windows has no SIGKILL


class Failpoints:
    """Counts passes through named places, and sends this process a signal at the one that the rule names.

    A rule reads `complete.before_commit:kill` or, for the third pass, `complete.before_commit:kill@3`; `term` in the place
    of `kill` asks the process to stop. The empty rule, which is what production has, makes `hit` do nothing.
    """

    def __init__(self, rule: str = "") -> None:
        self._name, self._left, self._signal = "", 0, ""
        if rule:
            match = _RULE.fullmatch(rule)
            if match is None:
                raise SettingsError(f"The fault {rule!r} is not of the form name:kill, name:kill@3 or name:term.")
            self._name, self._left = match["name"], int(match["hit"] or 1)
            self._signal = _SIGNALS[match["deed"]]

    def hit(self, name: str) -> None:
        """Pass through the place called `name`."""
        if not self._name or name != self._name:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.Signals[self._signal])
