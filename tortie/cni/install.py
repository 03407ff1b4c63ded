"""Puts the plugin and its configuration where container runtimes look: /opt/cni/bin and /etc/cni/net.d.

Both are written aside and renamed, so that a runtime never runs half a plugin. The plugin becomes one executable file
that starts the given interpreter; it needs nothing of this package at run time. The file holds the plugin's text and,
because compiling that takes a quarter of the whole run, the same compiled; an interpreter that was upgraded since to
one with another bytecode takes the text. Where the static front end (front.c) was built, it is copied instead: it
needs no interpreter on the host, and starts in a fraction of the time.

A configuration list may chain plugins of others behind ours: `portmap` publishes ports, `bandwidth` limits rates. Each
declares the capability by which a runtime passes what it was asked for (`runtimeConfig`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tortie.cni import plugin

NAME = "tortie"
"""Of the executable, which is the `type` that a configuration names."""
NETWORK = "k8s-pod-network"
"""The name that Calico's configuration has: it is part of every address handle."""
FILE = "10-tortie.conflist"
"""Runtimes that take the first network of the directory sort by file name."""
PLUGINS = Path("/opt/cni/bin")
NETWORKS = Path("/etc/cni/net.d")
ELSEWHERE = (Path("/usr/lib/cni"), Path("/usr/libexec/cni"))
"""Where distributions put the plugins of others; their runtimes look there, too."""

FRONT = Path("/usr/lib/tortie/cni/tortie")
"""Where images have the static front end."""

CAPABILITIES = {"ips": True, "mac": True, "io.kubernetes.cri.pod-annotations": True}
"""What a runtime may tell ours of a container; one that does not know them does not."""
CHAINED: dict[str, dict[str, Any]] = {
    "portmap": {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True},
    "bandwidth": {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    "tuning": {"type": "tuning", "capabilities": {"mac": True}},
}
"""Plugins of others that may follow ours, as entries of the list."""


def conflist(
    *,
    socket: str = plugin.SOCKET,
    network: str = NETWORK,
    version: str = "1.0.0",
    labels: Mapping[str, str] | None = None,
    chain: Iterable[str] = (),
) -> dict[str, Any]:
    """The network configuration list. `labels` are those of containers that no Pod resource describes; `chain` names
    rows of CHAINED."""
    entry: dict[str, Any] = {"type": NAME, "capabilities": CAPABILITIES}
    if socket != plugin.SOCKET:
        entry["socket"] = socket
    if labels:
        entry["args"] = {"cni": {"labels": [{"key": key, "value": value} for key, value in labels.items()]}}
    return {"cniVersion": version, "name": network, "plugins": [entry, *(CHAINED[name] for name in chain)]}


def install_plugin(directory: Path, *, interpreter: str = "") -> Path:
    """Write the executable into `directory`; its path. Raises OSError."""
    interpreter = interpreter or os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    return _write(directory / NAME, _executable(interpreter, Path(plugin.__file__).read_text()), 0o755)


def install_front(directory: Path, front: Path = FRONT) -> Path:
    """Copy the static front end into `directory`; its path. Raises OSError."""
    return _write(directory / NAME, front.read_bytes(), 0o755)


def install_conflist(directory: Path, configuration: dict[str, Any], *, file: str = FILE) -> Path:
    """Write the configuration list into `directory`; its path. Raises OSError."""
    return _write(directory / file, text_of(configuration), 0o644)


def text_of(configuration: dict[str, Any]) -> str:
    return json.dumps(configuration, indent=2) + "\n"


def absent(chain: Iterable[str], directories: Sequence[Path]) -> list[str]:
    """Those of the chained plugins that are in none of the directories."""
    return [name for name in chain if not any(os.access(directory / name, os.X_OK) for directory in directories)]


def obstacle(socket: str) -> str:
    """Why no pod can be taken now, by the agent's answer to STATUS (CNI 1.1); empty when one can."""
    question = {"cniVersion": "1.1.0", "name": NETWORK, "type": NAME}
    request = json.dumps({"env": {"CNI_COMMAND": "STATUS", "CNI_PATH": str(PLUGINS)}, "stdin": json.dumps(question)})
    try:
        answer = json.loads(plugin.ask(socket, request.encode()) or "{}")
    except FileNotFoundError:
        return f"no agent listens at {socket}"
    except (OSError, ValueError) as error:
        return f"the agent at {socket}: {error}"
    if answer.get("exit") == 0:
        return ""
    try:
        said = json.loads(answer["stdout"])
        return ": ".join(filter(None, (str(said["msg"]), str(said.get("details", "")))))
    except (KeyError, ValueError, TypeError):
        return f"the agent at {socket} gave half an answer"


_EXECUTABLE = """\
#!{interpreter} -IS
# Written by `tortie cni install`.
from _frozen_importlib_external import MAGIC_NUMBER
from marshal import loads
SOURCE = {source!r}
exec(loads({code}) if {magic} == MAGIC_NUMBER else SOURCE)
"""
_COMPILE = """\
import marshal, sys
from _frozen_importlib_external import MAGIC_NUMBER
code = compile(sys.stdin.read(), "tortie", "exec", dont_inherit=True, optimize=2)
print(MAGIC_NUMBER)
print(marshal.dumps(code))
"""


def _executable(interpreter: str, source: str) -> str:
    """Raises CalledProcessError when the interpreter cannot compile the source."""
    compiler = (interpreter, "-IS", "-X", "utf8", "-c", _COMPILE)
    done = subprocess.run(compiler, input=source, capture_output=True, encoding="utf-8", check=True)
    magic, code = done.stdout.splitlines()
    return _EXECUTABLE.format(interpreter=interpreter, source=source, magic=magic, code=code)


def _write(path: Path, content: str | bytes, mode: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.new")
    aside.write_bytes(content.encode() if isinstance(content, str) else content)
    aside.chmod(mode)
    aside.rename(path)
    return path
