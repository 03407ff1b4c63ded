"""A container runtime's side of CNI, as libcni does it: a list of plugins, called in order with each other's results.

    ADD     each plugin gets the result of the one before as prevResult
    CHECK   each gets the result of the whole ADD
    DEL     in reverse order, each with the result of the whole ADD
    GC      each, with the attachments that are to stay

A plugin that declares a capability gets what the runtime was asked for of that name as `runtimeConfig`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.support.machine import Machine

DIRECTORIES = ("/opt/cni/bin", "/usr/lib/cni")


class PluginError(AssertionError):
    def __init__(self, command: str, kind: str, answer: dict[str, Any]) -> None:
        super().__init__(f"{command} of {kind}: {answer}")
        self.kind = kind
        self.answer = answer


@dataclass
class Chain:
    machine: Machine
    configuration: Mapping[str, Any]
    """A network configuration list."""
    capabilities: Mapping[str, Any] = field(default_factory=dict)
    """Capability -> what the container's owner asks of it."""
    arguments: Mapping[str, str] = field(default_factory=dict)
    """CNI_ARGS."""
    interface: str = "eth0"

    @property
    def plugins(self) -> list[Mapping[str, Any]]:
        return list(self.configuration["plugins"])

    def add(self, container: str, netns: str) -> dict[str, Any]:
        """The result of the last plugin. Raises PluginError."""
        result: dict[str, Any] | None = None
        for plugin in self.plugins:
            result = self.call("ADD", plugin, container, netns, result)
        assert result is not None
        return result

    def check(self, container: str, netns: str, result: Mapping[str, Any], but: Iterable[str] = ()) -> None:
        """Raises PluginError. `but` names plugins that are not asked."""
        for plugin in self.plugins:
            if plugin["type"] not in but:
                self.call("CHECK", plugin, container, netns, result)

    def delete(self, container: str, netns: str, result: Mapping[str, Any] | None = None) -> None:
        for plugin in reversed(self.plugins):
            self.call("DEL", plugin, container, netns, result)

    def collect(self, keep: Iterable[str]) -> None:
        """GC of our own plugin alone: those of Debian 12 do not know it."""
        attachments = [{"containerID": container, "ifname": self.interface} for container in keep]
        plugin = {**self.plugins[0], "cni.dev/valid-attachments": attachments}
        self.call("GC", plugin, "", "", None, version="1.1.0")

    def call(
        self,
        command: str,
        plugin: Mapping[str, Any],
        container: str,
        netns: str,
        previous: Mapping[str, Any] | None,
        *,
        version: str = "",
    ) -> dict[str, Any]:
        """The answer of one plugin. Raises PluginError."""
        given = {
            **{key: value for key, value in plugin.items() if key != "capabilities"},
            "cniVersion": version or self.configuration["cniVersion"],
            "name": self.configuration["name"],
        }
        asked = {name: self.capabilities[name] for name in plugin.get("capabilities", {}) if name in self.capabilities}
        if asked:
            given["runtimeConfig"] = asked
        if previous is not None:
            given["prevResult"] = previous
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": self.interface,
            "CNI_PATH": ":".join(DIRECTORIES),
            "CNI_ARGS": ";".join(f"{name}={value}" for name, value in self.arguments.items()),
        }
        kind = plugin["type"]
        script = 'for d in ${CNI_PATH//:/ }; do [ -x "$d/$0" ] && exec "$d/$0"; done; exit 127'
        done = self.machine.try_("bash", "-c", script, kind, text=json.dumps(given), env=environment)
        answer = json.loads(done.stdout or "{}")
        if done.returncode:
            raise PluginError(command, kind, answer or {"msg": done.stderr})
        return dict(answer)
