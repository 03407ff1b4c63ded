"""What can go wrong between the bridge and the API server.

KubeError
  Unreachable        no answer, or a broken one: the server, the way to it, or a certificate
    Stalled          a watch that said nothing for too long
  Refused            the server answered with an error (`status`, `reason`)
  OtherCluster       the server is not that of the cluster whose objects are on the bus
"""

from __future__ import annotations

GONE = 410
TOO_LARGE = "too large resource version"
"""The server is older than what we know: it was restored, or is another one."""


class KubeError(Exception):
    """The text is one sentence for an operator."""


class Unreachable(KubeError):
    pass


class Stalled(Unreachable):
    pass


class OtherCluster(KubeError):
    pass


class Refused(KubeError):
    """An answer with an error: a `Status` (meta/v1), as the body of a response or as an event of a watch."""

    def __init__(self, status: int, reason: str, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else f"{status} {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        """What the server asks to wait; 0: it does not say."""

    @property
    def gone(self) -> bool:
        """What we know is too old, or too new, to be continued from: only a new list helps."""
        return self.status == GONE or TOO_LARGE in self.message.lower()

    @property
    def forbidden(self) -> bool:
        return self.status in (401, 403)

    @property
    def overloaded(self) -> bool:
        return self.status == 429
