"""Calico's annotations of a pod, as far as a pod with a wrong one is none that could be connected.

cni.projectcalico.org/podIPs, podIP              its addresses, until its status says them
cni.projectcalico.org/allowedSourcePrefixes      a JSON list of CIDRs
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from bus_schemas.manifests.addresses import address, network
from bus_schemas.manifests.fields import At, Fields

PREFIX = "cni.projectcalico.org/"
ADDRESSES, ADDRESS, SOURCES = f"{PREFIX}podIPs", f"{PREFIX}podIP", f"{PREFIX}allowedSourcePrefixes"


def addresses(document: Fields) -> tuple[str, ...]:
    """What the CNI plugin noted: plain addresses, perhaps with the length of their prefix, parted by commas."""
    annotations = document.place("metadata").child("annotations")
    at = next((at for name in (ADDRESSES, ADDRESS) if (at := annotations.child(name)).value), None)
    if at is None:
        return ()
    texts = (text.strip() for text in at.string().split(","))
    found = (address(At(text.removesuffix("/32").removesuffix("/128"), at.path, at.report)) for text in texts if text)
    return tuple(filter(None, found))


def check_sources(document: Fields) -> None:
    at = document.place("metadata").child("annotations").child(SOURCES)
    if isinstance(at.value, str) and at.value:
        for source in _listed(at):
            network(source)


def _listed(at: At) -> Iterator[At]:
    try:
        listed = json.loads(at.value)
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, list):
        at.fault('must be a JSON list of CIDRs, such as ["10.0.0.0/8"]')
        return
    yield from (At(entry, at.path, at.report) for entry in listed)
