"""Names of network devices in manifests, with the wildcard that BIRD knows."""

from __future__ import annotations

import re

from bus_schemas.manifests.fields import At, said

MAX_DEVICE = 15
"""IFNAMSIZ of the kernel, without its closing zero."""
DEVICE_PATTERN = re.compile(r"[A-Za-z0-9_.*-]{1,15}")


def device_pattern(at: At) -> str:
    text = at.string()
    if not DEVICE_PATTERN.fullmatch(text):
        at.fault(f"must be a device's name (at most {MAX_DEVICE} characters) or a pattern like eth*, not {said(text)}")
    return text
