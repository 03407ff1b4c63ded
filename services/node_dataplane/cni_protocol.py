"""The Container Network Interface's words: requests in, results and errors out. Pure.

https://www.cni.dev/docs/spec/ for 1.1.0; the configuration is read in `cni_configuration`, results are made in
`cni_results`. The plugin hands over its environment (`CNI_*`) and its standard input unread.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from services.node_dataplane import cni_asked, cni_configuration
from services.node_dataplane.cni_asked import Asked
from services.node_dataplane.cni_configuration import Config
from services.node_dataplane.cni_errors import CniError, Code
from services.node_dataplane.cni_results import result

__all__ = ["COMMANDS", "VERSIONS", "Call", "CniError", "Code", "Config", "failure", "parse", "result", "versions"]

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
COMMANDS = ("ADD", "DEL", "CHECK", "STATUS", "GC", "VERSION")
_SINCE = {"CHECK": "0.4.0", "STATUS": "1.1.0", "GC": "1.1.0"}

_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
_INTERFACE = re.compile(r"[^\s/:]{1,15}")
_RESERVED = (".", "..")


@dataclass(frozen=True)
class Call:
    command: str
    config: Config
    container: str = ""
    netns: str = ""
    interface: str = ""
    args: dict[str, str] = field(default_factory=dict)
    asked: Asked = field(default_factory=Asked)
    """Of ADD."""


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
    config = cni_configuration.read(raw, version, command)
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
    arguments = _arguments(env.get("CNI_ARGS", ""))
    asked = cni_asked.read(raw, arguments) if command == "ADD" else Asked()
    return Call(command, config, container, netns, interface, arguments, asked)


def _decode(stdin: str) -> dict[str, Any]:
    try:
        raw = msgspec.json.decode(stdin)
    except msgspec.DecodeError as error:
        raise CniError(Code.UNDECODABLE, "the network configuration is not JSON", str(error)) from error
    if not isinstance(raw, dict):
        raise CniError(Code.UNDECODABLE, "the network configuration is not a JSON object")
    return raw


def _arguments(text: str) -> dict[str, str]:
    pairs = {}
    for part in filter(None, text.split(";")):
        key, equals, value = part.partition("=")
        if not equals:
            raise CniError(Code.INVALID_ENVIRONMENT, f"CNI_ARGS holds {part!r}, which is not KEY=VALUE")
        pairs[key] = value
    return pairs


# --- answers


def versions(version: str) -> str:
    return _text({"cniVersion": version, "supportedVersions": list(VERSIONS)})


def failure(version: str, error: CniError) -> str:
    answer: dict[str, Any] = {"cniVersion": version, "code": int(error.code), "msg": error.message}
    if error.details:
        answer["details"] = error.details
    return _text(answer)


def _text(answer: dict[str, Any]) -> str:
    return msgspec.json.encode(answer).decode()
