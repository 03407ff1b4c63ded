"""The answer to a CNI call that cannot be met: the error codes of the specification
(https://www.cni.dev/docs/spec/#error) and the exception that carries one to the plugin's output."""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Error codes of the specification; from 100 on they are the plugin's own."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    CONTAINER_UNKNOWN = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    CHECK_FAILED = 100
    INTERNAL = 999


class CniError(Exception):
    """The answer to a call that cannot be met."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(message)
