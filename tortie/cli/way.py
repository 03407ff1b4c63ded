"""Whom a command asks: an api, or Kubernetes itself where there is none.

    --api, TORTIE_API            that api
    `kubectl tortie`             Kubernetes, by kubectl's rules
    an api at the default place  that one
    KUBECONFIG                   Kubernetes
    else                         the default place, where nobody answers: the error says what can be set

`tortie version` says which it is. ~/.kube/config counts for `kubectl tortie` alone: whoever types `tortie` on a machine
whose api happens to be down must not change a cluster that he did not name.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tortie.cli.errors import Unreachable

if TYPE_CHECKING:
    from tortie.direct.serving import Serving

DEFAULT_ADDRESS = "http://127.0.0.1:7460"
PLUGIN = "TORTIE_KUBECTL"
"""Set by `kubectl tortie` for itself."""
PROBE_S = 0.5
REACH = (
    "`kubectl port-forward -n kube-system deployment/tortie-api 7460` makes it reachable, and "
    f"TORTIE_API={DEFAULT_ADDRESS} has it asked"
)


@dataclass(frozen=True)
class Api:
    address: str
    why: str

    def __str__(self) -> str:
        return f"the api at {self.address} ({self.why})"


@dataclass(frozen=True)
class Kubernetes:
    kubeconfig: str
    """Empty: ~/.kube/config."""
    context: str
    """Empty: the current one of the file."""
    why: str

    def __str__(self) -> str:
        context = f", context {self.context}" if self.context else ""
        return f"Kubernetes by {self.kubeconfig or '~/.kube/config'}{context} ({self.why})"


def chosen(address: str = "") -> Api | Kubernetes:
    """`address`: of an option; empty: none was given."""
    if address or os.environ.get("TORTIE_API"):
        return Api(address or os.environ["TORTIE_API"], "as TORTIE_API or --api says")
    kubeconfig = os.environ.get("TORTIE_KUBECONFIG") or os.environ.get("KUBECONFIG", "")
    context = os.environ.get("TORTIE_KUBE_CONTEXT", "")
    if os.environ.get(PLUGIN):
        return Kubernetes(kubeconfig, context, "as kubectl tortie")
    if kubeconfig and not _listens(DEFAULT_ADDRESS):
        return Kubernetes(kubeconfig, context, f"KUBECONFIG is set, and no api is at {DEFAULT_ADDRESS}")
    return Api(DEFAULT_ADDRESS, "the default")


def _listens(address: str) -> bool:
    parts = urlsplit(address)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 80), timeout=PROBE_S).close()
    except OSError:
        return False
    return True


class Direct:
    """The api of this command over Kubernetes: started when it is first asked, again when more must be read."""

    def __init__(self, cluster: Kubernetes) -> None:
        self._cluster = cluster
        self._serving: Serving | None = None

    def address(self, method: str, path: str) -> str:
        """Where the request is answered. Raises Unreachable: only the bus could."""
        from tortie.direct import scope
        from tortie.direct.serving import Serving

        unknown = scope.only_the_bus(path)
        if unknown:
            raise Unreachable(f"Kubernetes does not know {unknown}, only the api does: {REACH}")
        if method != "GET" and not os.environ.get(PLUGIN) and self._serving is None:
            print(f"tortie: asks {self._cluster}", file=sys.stderr)
        wanted = scope.sources(method, path)
        if self._serving is None or not wanted <= self._serving.sources:
            if self._serving is not None:  # a command that asks twice asks for much
                wanted = scope.EVERYTHING
            self.close()
            several = os.pathsep in self._cluster.kubeconfig  # then the library reads KUBECONFIG itself
            kubeconfig = "" if several else os.path.expanduser(self._cluster.kubeconfig)
            serving = Serving(kubeconfig, self._cluster.context, wanted)
            serving.start()
            self._serving = serving
        return self._serving.address

    def close(self) -> None:
        if self._serving is not None:
            self._serving.stop()
            self._serving = None


_open: dict[Kubernetes, Direct] = {}


def direct(cluster: Kubernetes) -> Direct:
    """One for all clients of a command."""
    return _open.setdefault(cluster, Direct(cluster))


def close() -> None:
    """The command is over."""
    while _open:
        _open.popitem()[1].close()
