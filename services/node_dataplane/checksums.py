"""Whether the tunnel device may leave checksums to the hardware (transmit checksum offload). Pure; `offload` does it
and `offload_trial` tries it out.

Wrong checksums show as connections through the tunnel that hang or are very slow while pings pass. Two causes are
known:

    kernel     before 5.7 it writes a checksum into an outer UDP header that is to have none, when it masquerades a
               packet whose inner checksum is left to the device (mended by ea64d8d6c675; some older kernels have the
               mend too, which their number does not show). This can be tried out on the machine itself.
    hardware   some drivers compute tunnelled checksums only for the ports that they know. Only a peer would notice, so
               it is presumed from the driver's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

Mode = Literal["auto", "on", "off"]
Evidence = Literal["set", "measured", "presumed"]

FIXED_IN = (5, 7)
BROKEN_DRIVERS = {"vmxnet3": "it computes the checksums of tunnelled packets only for the ports that it knows"}
OVERRIDE = "ChecksumOffloadBroken"
"""Of FelixConfiguration's featureDetectOverride."""


class Trial(NamedTuple):
    """What masquerading a tunnelled packet on this machine showed."""

    corrupts: bool | None
    """None: it could not be tried out."""
    text: str


class Decision(NamedTuple):
    off: bool
    reason: str
    evidence: Evidence


def overridden(text: str | None) -> bool | None:
    """Of `featureDetectOverride` (`Feature=true,Other=false`): whether offload is said to be broken; None: not said."""
    said = None
    for part in (text or "").split(","):
        name, _, value = part.partition("=")
        if name.strip() == OVERRIDE and value.strip().lower() in ("true", "false"):
            said = value.strip().lower() == "true"
    return said


def decide(mode: Mode, broken: bool | None, release: str, drivers: Sequence[str], trial: Trial | None) -> Decision:
    """`broken`: `overridden`. `release` is uname's, `drivers` those of the uplink and of what lies below it."""
    if mode != "auto":
        return Decision(mode == "off", f"TORTIE_VXLAN_CHECKSUM_OFFLOAD is {mode}", "set")
    if broken is not None:
        return Decision(broken, f"featureDetectOverride has {OVERRIDE}={str(broken).lower()}", "set")
    if trial is not None and trial.corrupts:
        return Decision(True, trial.text, "measured")
    for driver in drivers:
        if driver in BROKEN_DRIVERS:
            return Decision(True, f"the driver {driver} is known for it: {BROKEN_DRIVERS[driver]}", "presumed")
    tried = trial is not None and trial.corrupts is False
    if not tried and (old := _before_the_mend(release)):
        return Decision(True, old, "presumed")
    named = f"nothing is known against the driver {', '.join(filter(None, drivers)) or '(none)'}"
    if trial is not None and trial.corrupts is False:
        return Decision(False, f"{trial.text}; {named}", "measured")
    return Decision(False, f"kernel {release} has the mend of 5.7; {named}", "presumed")


def _before_the_mend(release: str) -> str:
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None:
        return f"the kernel's release {release!r} cannot be read, so it may be older than 5.7"
    if (int(numbers[1]), int(numbers[2])) < FIXED_IN:
        return f"kernel {release} is older than 5.7 and may spoil checksums of tunnelled packets that it masquerades"
    return ""
