"""What one source is asked for next, and what an answer means for that. Pure.

               +------------- gone (410, too large a version), or an unknown event -------------+
               v                                                                                |
    start --> List (streamed; in pages where the server does not stream) --> listed --> Watch --+
               ^   |                                                              ^      |
               +---+ failed: later, from the beginning: half a list is no list    +------+ ended, broken, stalled:
                                                                                           resumed where it was

The version to resume at is that of the last event or bookmark. It is opaque, and never compared.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from services.kube_bridge.errors import KubeError, Refused

FIRST_WAIT_S = 0.25
NOT_STREAMED = frozenset({400, 405, 422})
"""With these a server refuses `sendInitialEvents`, or what it does not know of it."""
EXPIRED_PAGES = 2
"""So many lists in pages may expire before one is asked for whole."""


class Step(Enum):
    STREAM_LIST = "stream a list, then watch"
    PAGE_LIST = "list in pages"
    WHOLE_LIST = "list in one page"
    WATCH = "watch"


class Standing(Enum):
    """How a source stands."""

    STARTING = "starting"
    FOLLOWING = "following"
    FAILING = "failing"
    ABSENT = "absent"
    FORBIDDEN = "forbidden"


@dataclass
class Cursor:
    """Times in seconds, without jitter: the shell adds it."""

    streams: bool = True
    """Whether the server is believed to stream lists."""
    absent_s: float = 30.0
    max_s: float = 30.0
    version: str = ""
    """Where to resume; empty: a list is needed."""
    standing: Standing = Standing.STARTING
    why: str = ""
    """Of a standing that is not as it should be."""
    failures: int = 0
    """In a row."""
    expired: int = 0

    def step(self) -> Step:
        if self.version:
            return Step.WATCH
        if self.streams:
            return Step.STREAM_LIST
        return Step.PAGE_LIST if self.expired < EXPIRED_PAGES else Step.WHOLE_LIST

    def listed(self, version: str) -> None:
        self.version = version
        self.expired = 0
        self._well()

    def seen(self, version: str) -> None:
        """An event or a bookmark after the list."""
        if version:
            self.version = version
        self._well()

    def opened(self) -> None:
        """A watch was accepted by the server."""
        if self.version:
            self.standing, self.why = Standing.FOLLOWING, ""

    def ended(self, *, with_news: bool) -> float:
        """The server closed the watch in order; how long to wait. One that closes every watch at once is not asked
        again at once."""
        if with_news:
            self.failures = 0
            return 0.0
        return self._later()

    def absent(self) -> float:
        self.standing, self.why = Standing.ABSENT, "the server does not have it"
        self.version, self.failures = "", 0
        return self.absent_s

    def failed(self, step: Step, error: KubeError) -> float:
        """How long to wait."""
        if not isinstance(error, Refused):
            self._failing(error)
            return self._later()
        if error.gone:
            if step in (Step.PAGE_LIST, Step.WHOLE_LIST):
                self.expired += 1
            self.version = ""
            return self._later() if self.failures else self._soon()
        if step is Step.STREAM_LIST and error.status in NOT_STREAMED:
            self.streams = False
            return 0.0
        if error.forbidden:
            self.standing, self.why = Standing.FORBIDDEN, error.message
            return self.absent_s
        if error.status == 404:
            return self.absent()
        self._failing(error)
        return max(self._later(), error.retry_after_s)

    def doubtful(self) -> None:
        """An event that makes no sense: what is known is read again."""
        self.version = ""

    def _failing(self, error: KubeError) -> None:
        if not self.version or self.failures >= 1:  # a watch that breaks once and is resumed is nothing to tell
            self.standing, self.why = Standing.FAILING, str(error)

    def _well(self) -> None:
        self.standing, self.why, self.failures = Standing.FOLLOWING, "", 0

    def _soon(self) -> float:
        self.failures += 1
        return 0.0

    def _later(self) -> float:
        self.failures += 1
        return float(min(FIRST_WAIT_S * 2 ** (self.failures - 1), self.max_s))
