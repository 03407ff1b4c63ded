"""What a machine lacks that is to have an agent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from chassis.errors import CannotServe
from services.node_dataplane.errors import NodeError
from services.node_dataplane.nft.errors import NftError


@contextmanager
def fit() -> Iterator[None]:
    """It becomes CannotServe, with the sentence that says what to do about it."""
    try:
        yield
    except PermissionError as error:
        raise CannotServe(
            f"the agent configures links, routes and nftables, which needs root (CAP_NET_ADMIN): {error.strerror}"
        ) from error
    except (NodeError, NftError) as error:
        raise CannotServe(str(error)) from error
