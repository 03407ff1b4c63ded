"""The Container Network Interface's words: requests in, results and errors out. Pure.

https://www.cni.dev/docs/spec/ for 1.1.0; the results of the older versions differ in `ips` (0.3 and 0.4 name the
family in each). The plugin hands over its environment (`CNI_*`) and its standard input unread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

import msgspec

from services.node_dataplane.links import GATEWAY4, GATEWAY6, NODE_MAC

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
COMMANDS = ("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION")
_SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}

_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_NETWORK = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_RESERVED = (".", "..")


class Code(IntEnum):
    """Error codes of the specification."""

    INCOMPATIBLE_VERSION = 1
    UNSUPPORTED_FIELD = 2
    CONTAINER_UNKNOWN = 3
    INVALID_ENVIRONMENT = 4
    IO_FAILURE = 5
    UNDECODABLE = 6
    INVALID_CONFIGURATION = 7
    TRY_AGAIN = 11
    NOT_AVAILABLE = 50
    CHECK_FAILED = 100
    INTERNAL = 999


class CniError(Exception):
    """The answer to a call that cannot be met."""

    def __init__(self, code: Code, message: str, details: str = "") -> None:
        self.code = code
        self.message = message
        self.details = details
        super().__init__(message)


@dataclass(frozen=True)
class Config:
    """The parts of the network configuration that we act on."""

    version: str
    name: str
    mtu: int = 0
    """0: as the node decides."""
    families: tuple[int, ...] = ()
    """Empty: every family that has a pool."""
    pools4: tuple[str, ...] = ()
    pools6: tuple[str, ...] = ()
    labels: dict[str, str] | None = None
    """`args.cni.labels`: of a pod that no Pod resource describes."""
    attachments: frozenset[tuple[str, str]] = frozenset()
    """`cni.dev/valid-attachments` of GC: (container, interface)."""
    previous: tuple[str, ...] | None = None
    """Plain addresses of prevResult."""


@dataclass(frozen=True)
class Call:
    command: str
    config: Config
    container: str = ""
    netns: str = ""
    interface: str = ""
    args: dict[str, str] = field(default_factory=dict)


def parse(env: Mapping[str, str], stdin: str) -> Call:
    """Raises CniError."""
    command = env.get("CNI_COMMAND", "")
    if command not in COMMANDS:
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_COMMAND is {command!r}, not one of {', '.join(COMMANDS)}")
    raw = _decode(stdin)
    version = raw.get("cniVersion", "")
    if command == "VERSION":
        return Call(command, Config(version=version if version in VERSIONS else VERSIONS[-1], name=""))
    if version not in VERSIONS:
        raise CniError(
            Code.INCOMPATIBLE_VERSION, f"cniVersion {version or '0.1.0'!r} is not supported", ", ".join(VERSIONS)
        )
    if VERSIONS.index(version) < VERSIONS.index(_SINCE.get(command, version)):
        raise CniError(
            Code.INCOMPATIBLE_VERSION,
            f"{command} came with version {_SINCE[command]}, the configuration says {version}",
        )
    config = _config(raw, version, command)
    if command in ("STATUS", "GC"):
        return Call(command, config)
    container, interface = env.get("CNI_CONTAINERID", ""), env.get("CNI_IFNAME", "")
    if not _CONTAINER.fullmatch(container):
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_CONTAINERID is {container!r}, which is not a container id")
    if not _INTERFACE.fullmatch(interface) or interface in _RESERVED:
        raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_IFNAME is {interface!r}, which is not a device name")
    netns = env.get("CNI_NETNS", "")
    if not netns and command != "DEL":
        raise CniError(Code.INVALID_ENVIRONMENT, "CNI_NETNS is not set")
    if command == "CHECK" and config.previous is None:
        raise CniError(Code.INVALID_CONFIGURATION, "CHECK needs prevResult in the configuration")
    return Call(command, config, container, netns, interface, _arguments(env.get("CNI_ARGS", "")))


def _decode(stdin: str) -> dict[str, Any]:
    try:
        raw = msgspec.json.decode(stdin)
    except msgspec.DecodeError as error:
        raise CniError(Code.UNDECODABLE, "the network configuration is not JSON", str(error)) from error
    if not isinstance(raw, dict):
        raise CniError(Code.UNDECODABLE, "the network configuration is not a JSON object")
    return raw


def _config(raw: dict[str, Any], version: str, command: str) -> Config:
    name = raw.get("name")
    if not isinstance(name, str) or not _NETWORK.fullmatch(name):
        raise CniError(Code.INVALID_CONFIGURATION, f"name is {name!r}, which is not a network's name")
    mtu = raw.get("mtu", 0)
    if not isinstance(mtu, int) or isinstance(mtu, bool) or not (mtu == 0 or 68 <= mtu <= 65535):
        raise CniError(Code.INVALID_CONFIGURATION, f"mtu is {mtu!r}, not a number from 68 to 65535")
    ipam = _mapping(raw, "ipam")
    families = tuple(f for f, key in ((4, "assign_ipv4"), (6, "assign_ipv6")) if _truth(ipam.get(key)))
    return Config(
        version=version,
        name=name,
        mtu=mtu,
        families=families,
        pools4=_strings(ipam, "ipv4_pools"),
        pools6=_strings(ipam, "ipv6_pools"),
        labels=_labels(raw),
        attachments=_attachments(raw) if command == "GC" else frozenset(),
        previous=_previous(raw),
    )


def _mapping(raw: dict[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key) or {}
    if not isinstance(value, dict):
        raise CniError(Code.INVALID_CONFIGURATION, f"{key} is not an object")
    return value


def _truth(value: object) -> bool:
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _strings(raw: dict[str, Any], key: str) -> tuple[str, ...]:
    value = raw.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise CniError(Code.INVALID_CONFIGURATION, f"ipam.{key} is not a list of strings")
    return tuple(value)


def _labels(raw: dict[str, Any]) -> dict[str, str] | None:
    """The convention of https://www.cni.dev/docs/conventions/: a list of {"key": ..., "value": ...}."""
    rows = _mapping(_mapping(raw, "args"), "cni").get("labels")
    if rows is None:
        return None
    try:
        return {str(row["key"]): str(row["value"]) for row in rows}
    except (TypeError, KeyError) as error:
        raise CniError(
            Code.INVALID_CONFIGURATION, "args.cni.labels is not a list of objects with key and value"
        ) from error


def _attachments(raw: dict[str, Any]) -> frozenset[tuple[str, str]]:
    rows = raw.get("cni.dev/valid-attachments")
    if rows is None:
        raise CniError(Code.INVALID_CONFIGURATION, "GC needs cni.dev/valid-attachments in the configuration")
    try:
        return frozenset((str(row["containerID"]), str(row["ifname"])) for row in rows)
    except (TypeError, KeyError) as error:
        raise CniError(
            Code.INVALID_CONFIGURATION, "cni.dev/valid-attachments is not a list of objects with containerID and ifname"
        ) from error


def _previous(raw: dict[str, Any]) -> tuple[str, ...] | None:
    result = raw.get("prevResult")
    if result is None:
        return None
    try:
        return tuple(str(row["address"]).partition("/")[0] for row in result.get("ips", ()))
    except (AttributeError, TypeError, KeyError) as error:
        raise CniError(Code.UNDECODABLE, "prevResult is not a CNI result") from error


def _arguments(text: str) -> dict[str, str]:
    pairs = {}
    for part in filter(None, text.split(";")):
        key, equals, value = part.partition("=")
        if not equals:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS holds {part!r}, which is not KEY=VALUE")
        pairs[key] = value
    return pairs


# --- answers


def result(version: str, *, link: str, interface: str, netns: str, mac: str, mtu: int, addresses: Sequence[str]) -> str:
    """The result of ADD, in the shape of `version`."""
    ips = []
    routes = []
    for address in addresses:
        six = ":" in address
        row: dict[str, Any] = {
            "address": f"{address}/{128 if six else 32}",
            "gateway": GATEWAY6 if six else GATEWAY4,
            "interface": 1,
        }
        if version < "1":
            row["version"] = "6" if six else "4"
        ips.append(row)
        routes.append({"dst": "::/0" if six else "0.0.0.0/0", "gw": row["gateway"]})
    near: dict[str, Any] = {"name": link, "mac": NODE_MAC}
    far: dict[str, Any] = {"name": interface, "mac": mac, "sandbox": netns}
    if version == "1.1.0":
        near["mtu"] = far["mtu"] = mtu
    return _text({"cniVersion": version, "interfaces": [near, far], "ips": ips, "routes": routes, "dns": {}})


def versions(version: str) -> str:
    return _text({"cniVersion": version, "supportedVersions": list(VERSIONS)})


def failure(version: str, error: CniError) -> str:
    answer: dict[str, Any] = {"cniVersion": version, "code": int(error.code), "msg": error.message}
    if error.details:
        answer["details"] = error.details
    return _text(answer)


def _text(answer: dict[str, Any]) -> str:
    return msgspec.json.encode(answer).decode()
