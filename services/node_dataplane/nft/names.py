"""What chains and sets are called: derived from what they stand for, so a restart and every replica agree.

from_<h>, to_<h>        chain of a rule group: what its pods may send, what may be sent to them
host_<stage>_<h>        the same of host endpoints
from_<h>_<n>            its n-th tier, where a rule of the tier can pass to the next one
out_<h>, in_<h>         one policy's rules for what its pods send, receive
deny_<h>                what a policy's rule that denies leads to: its log message, its counter, the drop
guard_<name>            the drop of one guard
g4_<h>, g6_<h>          members of an address group; n4_, n6_ its networks; p4_, p6_ members of a ports group
m_<h>                   lookup of merged rules of a tier
<verdict>_<way>_<h>     counter object of one policy's (or tier's) verdicts one way
pick<4|6>_<n>           one of the first n backends of a service; _<k>: of those after the first k
affine_<h>_<scope>      the backend of a service that a client had before, else any
stuck_<h>, sticky_<h>   one backend of such a service, and its clients
split_<chain>_<chain>   a service, for what comes from the node and its pods, and for others
ranges_<h>              a service that only some networks may use
tortie <kind> ...       prefix of a message to the kernel's log group
"""

from __future__ import annotations

from base64 import b32encode
from functools import lru_cache
from hashlib import sha256
from typing import Literal

import msgspec

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Direction

TABLE = "tortie"
LINK_PREFIX = "tor"
"""Every pod link's name begins with it."""
LINK_GROUP, LINK_GROUP_MASK = 0x40000000, 0xC0000000
"""Every pod link is in a group of devices of its own that begins so (see `link_groups`): to read it costs a packet a
fraction of what its device's name does. Greater ones iproute2 cannot write, and nobody counts his groups up to here."""

Way = Literal["ingress", "egress"]
WAYS: tuple[Way, Way] = ("egress", "ingress")

Verdict = Literal["allow", "deny", "pass", "would_allow", "would_deny"]
Kind = Literal["denied", "would_deny", "log", "guard"]
"""Of a message to the log group: a drop by policy, one by the preview, a rule that logs, a drop by a guard."""

LOG_GROUP = 84
LIMIT = "denied"
"""The limit object in front of every message to the log group."""

LONG = 4096
"""Bytes of a direction from which on its name is worked out anew each time: to remember many such would cost more."""

_ENDPOINT = {"egress": "from_", "ingress": "to_"}
_POLICY = {"egress": "out_", "ingress": "in_"}


@lru_cache(maxsize=1 << 16)
def _digest(data: bytes) -> str:
    """130 bits in letters and digits: longer than any tenant can search a collision for."""
    return b32encode(sha256(data).digest())[:26].decode().lower()


def _structure(direction: Direction) -> str:
    data = msgspec.msgpack.encode(direction)
    return _digest(data) if len(data) <= LONG else _digest.__wrapped__(data)


def endpoint_chain(way: Way, direction: Direction) -> str:
    """By structure (which rules in which order), not by what the rules say today."""
    return _ENDPOINT[way] + _structure(direction)


def host_chain(stage: str, direction: Direction) -> str:
    """Of a rule group of host endpoints, at one of the stages of `host`."""
    return f"host_{stage}_{_structure(direction)}"


def tier_chain(endpoint_chain: str, tier: int) -> str:
    return f"{endpoint_chain}_{tier}"


def policy_chain(way: Way, rules: RulesId) -> str:
    return _POLICY[way] + _digest(rules.encode())


def deny_chain(way: Way, subject: str) -> str:
    return f"deny_{_digest(f'{way} {subject}'.encode())}"


def preview_chain(endpoint_chain: str, tier: int) -> str:
    return f"{endpoint_chain}_preview_{tier}"


def merged_map(run: str, what: str) -> str:
    return f"m_{_digest(f'{run} {what}'.encode())}"


def guard_chain(guard: str) -> str:
    return f"guard_{guard}"


def counter(way: Way, rules: str, verdict: Verdict) -> str:
    """`rules` as in `bus_schemas.policy.Hit`."""
    return f"{verdict}_{way}_{_digest(rules.encode())}"


def log_prefix(kind: Kind, way: Way, subject: str) -> str:
    """Below the kernel's 127 bytes, whatever the subject; the table knows what it stands for."""
    return f"tortie {kind} {way} {_digest(subject.encode())}"


def service_chain(kind: Literal["affine", "stuck", "sticky", "ranges"], what: str) -> str:
    """`sticky` is a set."""
    return f"{kind}_{_digest(what.encode())}"


def address_set(group: GroupId, family: int) -> str:
    return f"g{family}_{_digest(group.encode())}"


def net_set(group: GroupId, family: int) -> str:
    return f"n{family}_{_digest(group.encode())}"


def port_set(group: GroupId, family: int) -> str:
    return f"p{family}_{_digest(group.encode())}"
