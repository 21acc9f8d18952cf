"""Failpoints: named places where a test may kill the process. Knows nothing of what happens there."""

from __future__ import annotations

import os
import re
import signal

from wanreel.core.errors import SettingsError

_RULE = re.compile(r"(?P<name>[a-z0-9_.]+):kill(?:@(?P<hit>[1-9][0-9]*))?")


class Failpoints:
    """Counts passes through named places, and ends the process with SIGKILL at the one that the rule names.

    A rule reads `complete.before_commit:kill` or, for the third pass, `complete.before_commit:kill@3`. The empty rule,
    which is what production has, makes `hit` do nothing.
    """

    def __init__(self, rule: str = "") -> None:
        self._name, self._left = "", 0
        if rule:
            match = _RULE.fullmatch(rule)
            if match is None:
                raise SettingsError(f"The fault {rule!r} is not of the form name:kill or name:kill@3.")
            self._name, self._left = match["name"], int(match["hit"] or 1)

    def hit(self, name: str) -> None:
        """Pass through the place called `name`."""
        if not self._name or name != self._name:
            return
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
