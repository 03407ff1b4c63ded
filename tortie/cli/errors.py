"""How a command fails: one sentence on stderr and an exit code.

CommandError
├── Refused       1   the other side understood and said no
├── Unreachable   2   nobody to ask
└── Misused       2   the command line makes no sense
"""

from __future__ import annotations

from collections.abc import Sequence


class CommandError(Exception):
    exit_code = 1

    def __init__(self, text: str, details: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.details = tuple(details)
        """Further lines, one fault each."""


class Refused(CommandError):
    def __init__(self, text: str, details: Sequence[str] = (), *, status: int = 0, absent: bool = False) -> None:
        """`absent`: there is no such object, but there may be one."""
        super().__init__(text, details)
        self.absent = absent
        self.status = status
        """The HTTP status of the answer; 0 where there was none."""


class Unreachable(CommandError):
    exit_code = 2


class Misused(CommandError):
    exit_code = 2
