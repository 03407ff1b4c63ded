"""What an operator can set about the api."""

from __future__ import annotations

from chassis.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    api_listen: str = "127.0.0.1:7460"
    """Where the api listens: `host:port` and `unix:/path`, several separated by commas. There is no authentication of
    its own: whoever reaches it may change everything, so listen on loopback or a socket whose directory is guarded."""
    api_max_body_bytes: int = 16 * 1024 * 1024
    """The largest request body."""
