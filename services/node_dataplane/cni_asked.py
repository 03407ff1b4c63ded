"""What a runtime asks for one container, whose owner told it: an address, a MAC. Pure.

    runtimeConfig.ips, args.cni.ips, CNI_ARGS IP     addresses, with or without a prefix length; IP has commas between
    runtimeConfig.mac, args.cni.mac, CNI_ARGS MAC    of the container's device

By the conventions of https://www.cni.dev/docs/conventions/: the first that is there counts. podman's --ip and
--mac-address, nerdctl's and the rest arrive so. What annotations of the pod say goes before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_interface
from typing import Any

from services.node_dataplane.cni_errors import CniError, Code

_MAC = re.compile("[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


@dataclass(frozen=True)
class Asked:
    addresses: tuple[str, ...] = ()
    """Plain, at most one of each family."""
    mac: str = ""


def read(raw: Mapping[str, Any], arguments: Mapping[str, str]) -> Asked:
    """`raw` is the network configuration. Raises CniError."""
    by_capability, by_convention = _mapping(raw, "runtimeConfig"), _mapping(_mapping(raw, "args"), "cni")
    ips = by_capability.get("ips") or by_convention.get("ips") or arguments.get("IP", "").split(",")
    mac = by_capability.get("mac") or by_convention.get("mac") or arguments.get("MAC", "")
    if not isinstance(ips, list) or not all(isinstance(text, str) for text in ips):
        raise _invalid(f"the addresses that the runtime asks for are {ips!r}, not a list of addresses")
    return Asked(_addresses([text for text in ips if text]), _mac(mac))


def _addresses(texts: list[str]) -> tuple[str, ...]:
    families: dict[int, str] = {}
    for text in texts:
        try:
            address = ip_interface(text).ip
        except ValueError as error:
            raise _invalid(f"the runtime asks for the address {text!r}, which is none") from error
        if address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local:
            raise _invalid(f"the runtime asks for the address {text}, which can be no container's")
        if families.setdefault(address.version, str(address)) != str(address):
            raise _invalid(f"the runtime asks for {', '.join(texts)}: a pod has one address of each family")
    return tuple(families.values())


def _mac(text: object) -> str:
    if not text:
        return ""
    if not isinstance(text, str) or not _MAC.fullmatch(text):
        raise _invalid(f"the runtime asks for the MAC {text!r}, which is none")
    mac = text.lower().replace("-", ":")
    if int(mac[:2], 16) & 1 or mac == "00:00:00:00:00:00":
        raise _invalid(f"the runtime asks for the MAC {text}, which is no address of a single device")
    return mac


def _mapping(raw: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise _invalid(f"{key} is not an object")
    return value


def _invalid(message: str) -> CniError:
    return CniError(Code.INVALID_CONFIGURATION, message)
