"""What can go wrong on the bus.

    BusError
    ├── Unavailable        no usable bus, no responder, no answer in time: the outcome may be unknown, ask again
    │   └── RequestFailed  the responder answered that it failed
    ├── Conflict           compare-and-swap: the key is not as the writer believed; nothing was written
    ├── Rejected           the server refused the write for another reason (too large, a limit, no permission)
    └── Unusable           this server cannot carry the streams (too old, or it ignored what was asked of it)
    Unreadable             a Malformed that knows its sequence, so that its writer can replace it
    SettingsError          the environment does not make valid settings
    CannotServe            what the settings ask for cannot be had on this machine (an address in use)

Whose fault it is shows in the class: Unavailable is the world's, Conflict is another writer's, Rejected and
SettingsError are ours or the operator's.
"""

from __future__ import annotations

from collections.abc import Iterable

from bus_schemas.codec import Malformed


class BusError(Exception):
    """Base of everything that the bus raises."""


class Unavailable(BusError):
    """The bus or the responder did not answer. A write may nevertheless have happened: compare before repeating."""


class RequestFailed(Unavailable):
    """The responder's handler failed; the text is its own."""


class Conflict(BusError):
    """The key's last sequence is `actual`, not `expected`. Nothing was written, not even the rest of a batch."""

    def __init__(self, subject: str, *, expected: int, actual: int | None, others: Iterable[str] = ()) -> None:
        self.subject = subject
        self.subjects = frozenset((subject, *others))
        """All keys of a batch that are not as expected, as far as that is known."""
        self.expected = expected
        self.actual = actual
        """The key's last sequence when the server said so; 0 when it holds nothing; None when it did not say."""
        super().__init__(f"{subject} was expected at sequence {expected}, it is at {actual}")


class Rejected(BusError):
    """The server understood the write and refused it."""

    def __init__(self, text: str, code: int = 0) -> None:
        self.code = code
        """The server's `err_code`, 0 when it gave none."""
        super().__init__(text)


class Unreadable(Malformed):
    """What lies on the bus under a key is not a message of its family. Returned in the place of a Fact, not raised."""

    def __init__(self, subject: str, sequence: int, reason: str) -> None:
        self.subject = subject
        self.sequence = sequence
        super().__init__(f"{subject}: {reason}")


class Unusable(BusError):
    """The server is not one that Tortie can run on; the text says what an operator has to change."""


class SettingsError(ValueError):
    """The environment is not valid. `faults` holds one sentence for each thing to mend, never a secret's value."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        super().__init__("; ".join(faults))


class CannotServe(Exception):
    """The process cannot do its work on this machine as it is set up. The text is a sentence that says what to mend;
    the process ends with it and without a traceback."""
