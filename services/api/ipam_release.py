"""Giving an address back by hand: what may be asked of address management, and what came of it. Pure.

    Asked(ip, handle, sequence) --ask--> ReleaseRequest, which says whose address it must still be
                                  '----> Outcome, when there is nothing to ask, or somebody uses the address

A report that is out of date is safe: the sequence that it names is another one as soon as the address was given anew.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Literal

import msgspec

from bus_schemas.ids import HandleId
from bus_schemas.ipam import Released, ReleaseReply, ReleaseRequest
from services.api import ipam_views
from services.api.core import Core


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    ip: str
    handle: str = ""
    """As a report has it; without, the one that has the address now."""
    sequence: int = 0


class ReleaseBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    addresses: tuple[Asked, ...]
    force: bool = False
    """Also what somebody says that he uses."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    ip: str
    outcome: Literal["released", "unchanged", "refused", "busy"]
    reason: str = ""


def ask(core: Core, asked: Asked, now: float, *, force: bool) -> ReleaseRequest | Outcome:
    try:
        found = ipam_views.address(core, asked.ip, now)
    except ValueError as error:
        return Outcome(ip=asked.ip, outcome="refused", reason=str(error))
    ip = str(ip_address(asked.ip))
    if not found["assigned"]:
        return Outcome(ip=ip, outcome="unchanged", reason="it is not in use")
    if asked.handle and (asked.handle, asked.sequence) != (found["handle"], found["sequence"]):
        return Outcome(ip=ip, outcome="unchanged", reason=f"it was given anew since, to {found['handle']}")
    if found["holders"] and not force:
        used = " and ".join(found["holders"])
        return Outcome(ip=ip, outcome="refused", reason=f"{used} says that it is in use: it takes force to release it")
    return ReleaseRequest(address=ip, handle=HandleId(found["handle"]), sequence=found["sequence"])


def outcome(ip: str, reply: ReleaseReply) -> Outcome:
    if isinstance(reply, Released):
        if ip in reply.addresses:
            return Outcome(ip=ip, outcome="released")
        return Outcome(ip=ip, outcome="unchanged", reason="it was released or given anew meanwhile")
    kind: Literal["refused", "busy"] = "busy" if type(reply).__name__ == "Busy" else "refused"
    return Outcome(ip=ip, outcome=kind, reason=reply.reason)
