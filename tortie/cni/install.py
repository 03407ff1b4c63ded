"""Puts the plugin and its configuration where container runtimes look: /opt/cni/bin and /etc/cni/net.d.

Both are written aside and renamed, so that a runtime never runs half a plugin. The plugin becomes one executable file
that starts the given interpreter; it needs nothing of this package at run time.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tortie.cni import plugin

NAME = "tortie"
"""Of the executable, which is the `type` that a configuration names."""
NETWORK = "k8s-pod-network"
"""The name that Calico's configuration has: it is part of every address handle."""


def conflist(*, socket: str = plugin.SOCKET, network: str = NETWORK, version: str = "1.0.0") -> dict[str, Any]:
    """The network configuration list."""
    entry: dict[str, Any] = {"type": NAME}
    if socket != plugin.SOCKET:
        entry["socket"] = socket
    return {"cniVersion": version, "name": network, "plugins": [entry]}


def install_plugin(directory: Path, *, interpreter: str = "") -> Path:
    """Write the executable into `directory`; its path. Raises OSError."""
    source = Path(plugin.__file__).read_text().split("\n", 1)[1]
    interpreter = interpreter or os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return _write(directory / NAME, f"#!{interpreter} -IS\n{source}", 0o755)


def install_conflist(directory: Path, configuration: dict[str, Any], *, file: str = "10-tortie.conflist") -> Path:
    """Write the configuration list into `directory`; its path. Raises OSError."""
    return _write(directory / file, json.dumps(configuration, indent=2) + "\n", 0o644)


def _write(path: Path, text: str, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text)
    aside.chmod(mode)
    aside.rename(path)
    return path
