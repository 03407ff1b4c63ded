"""libnftables through ctypes: one context kept open, text in, text or JSON out (libnftables(3)).

A script is one transaction. The context belongs to the network namespace of the thread that opens it.

The library makes much of a large script, and the C library would keep that memory when it is freed: 86 MB for a node of
500 pods and 1,000 policies. So it is told to give it back.
"""

from __future__ import annotations

import ctypes
from typing import Self

from services.node_dataplane.nft.errors import NftError, NftUnavailable

_LIBRARY = "libnftables.so.1"
_JSON = 1 << 4
_TERSE = 1 << 11
_LARGE = 200_000
"""Bytes of text, given or taken, from which on freed memory is worth giving back (some milliseconds)."""


def _load() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(_LIBRARY)
    except OSError as error:
        raise NftUnavailable(f"install nftables (Debian: apt install nftables): {error}") from error
    context = ctypes.c_void_p
    library.nft_ctx_new.restype = context
    library.nft_ctx_new.argtypes = [ctypes.c_uint32]
    library.nft_ctx_free.argtypes = [context]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error"):
        getattr(library, name).argtypes = [context]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(library, name).argtypes = [context]
        getattr(library, name).restype = ctypes.c_char_p
    library.nft_ctx_output_set_flags.argtypes = [context, ctypes.c_uint]
    library.nft_run_cmd_from_buffer.argtypes = [context, ctypes.c_char_p]
    return library


class Libnftables:
    """Not for use by two threads at once."""

    def __init__(self) -> None:
        self._library = _load()
        self._give_back = getattr(ctypes.CDLL(None), "malloc_trim", lambda _: 0)  # Of the GNU C library.
        self._context = self._library.nft_ctx_new(0)
        if not self._context:
            raise NftUnavailable("libnftables gives no context: is this user root?")
        self._library.nft_ctx_buffer_output(self._context)
        self._library.nft_ctx_buffer_error(self._context)

    def close(self) -> None:
        """What is asked afterwards raises NftError."""
        if self._context:
            self._library.nft_ctx_free(self._context)
            self._context = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, script: str) -> str:
        """Commit a script, or answer a listing. Raises NftError with the library's complaint."""
        return self._run(script, 0)

    def json(self, command: str, *, terse: bool = False) -> str:
        """A listing as JSON, terse without the elements of named sets (libnftables-json(5))."""
        return self._run(command, _JSON | (_TERSE if terse else 0))

    def _run(self, command: str, flags: int) -> str:
        if not self._context:
            raise NftError("the context is closed")
        self._library.nft_ctx_output_set_flags(self._context, flags)
        large = len(command) > _LARGE
        failed = self._library.nft_run_cmd_from_buffer(self._context, command.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context) or b""
        complaint: bytes = self._library.nft_ctx_get_error_buffer(self._context) or b""
        if large or len(output) > _LARGE:
            self._give_back(0)
        if failed:
            raise NftError(_first(complaint.decode(errors="replace")))
        return output.decode()


def _first(complaint: str) -> str:
    """The first error with the line that it is about, without the line of carets."""
    lines = [line.strip() for line in complaint.splitlines()]
    useful = [line for line in lines if line.strip("^ ")][:2]
    return ": ".join(useful) or "libnftables gave no reason"
