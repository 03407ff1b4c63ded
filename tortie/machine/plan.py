"""A plan: steps in the order in which they are carried out, what stays and why, and what the user should know. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any, Literal

Way = Literal["command", "move", "delete", "bird"]


@dataclass(frozen=True)
class Step:
    kind: str
    """As a person calls it: `route`, `device`, `nftables table`, `file` ..."""
    object: str
    command: tuple[str, ...] = ()
    input: str = ""
    """For the command's standard input."""
    way: Way = "command"
    """`move`: the file goes into the backup; `delete`: file or directory; `bird`: our BIRD ends, and takes its routes
    along."""

    @property
    def shown(self) -> str:
        """What a person would type."""
        match self.way:
            case "move":
                return f"mv {shlex.quote(self.object)} BACKUP{shlex.quote(self.object)}"
            case "delete":
                return f"rm -r {shlex.quote(self.object)}"
            case "bird":
                return "birdc configure (without its kernel routes' persist), down"
        line = shlex.join(self.command)
        return line if not self.input else f"{line} <<EOF\n{self.input}EOF"


@dataclass(frozen=True)
class Kept:
    kind: str
    object: str
    reason: str


@dataclass(frozen=True)
class Plan:
    steps: tuple[Step, ...] = ()
    kept: tuple[Kept, ...] = ()
    restart: tuple[str, ...] = ()
    """Pods, or links whose pods are not known by name, that need to be started again."""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "steps": [{"kind": s.kind, "object": s.object, "command": s.shown} for s in self.steps],
            "kept": [{"kind": k.kind, "object": k.object, "reason": k.reason} for k in self.kept],
            "restart": list(self.restart),
            "notes": list(self.notes),
        }
