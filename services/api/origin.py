"""Keeps web pages from using a person's browser to reach an api that trusts whoever can reach it.

A browser says where a script came from (`Origin`, RFC 6454); a page whose own host name was bent to the loopback
address gives itself away by that name in `Host`. Programs send no Origin and address what they mean.
"""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from aiohttp import web


def foreign(request: web.Request) -> str:
    """Why the request is not served: one sentence; empty: it is."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        return f"requests from web pages of {origin} are not served"
    if _on_loopback(request) and not _is_local_name(request.host):
        return f"the host name {request.host!r} is not this machine's"
    return ""


def _on_loopback(request: web.Request) -> bool:
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return isinstance(name, tuple) and ip_address(name[0]).is_loopback


def _is_local_name(host: str) -> bool:
    name = urlsplit(f"//{host}").hostname or ""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
