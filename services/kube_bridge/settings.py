"""What an operator can set about the bridge to Kubernetes."""

from __future__ import annotations

from chassis.errors import SettingsError
from chassis.settings import ServiceSettings


class Settings(ServiceSettings, frozen=True, kw_only=True):
    kubeconfig: str = ""
    """The kubeconfig file of the cluster; empty: the pod's service account, or else KUBECONFIG or ~/.kube/config."""
    kube_context: str = ""
    """The context of that file; empty: its current one."""
    kube_adopt: str = ""
    """The uid of a cluster (of its namespace kube-system) that may take over what another cluster left on the bus. Only
    needed after a cluster was made anew."""
    kube_page: int = 500
    """Objects of one page of a list, from servers that do not stream lists."""
    kube_stream_lists: bool = True
    """Whether to ask for streamed lists; servers that do not have them are found out anyway."""
    kube_stall_s: float = 180.0
    """Seconds without any sign (an event, a bookmark) after which a watch is taken for dead and begun again."""
    kube_retry_max_s: float = 30.0
    """Seconds between two attempts at most, while the server fails or refuses."""
    kube_absent_s: float = 30.0
    """Seconds after which a kind that the server does not have (no CRD) or that we may not read is looked for again."""
    kube_lease_name: str = "tortie-kube-bridge"
    """The Lease (coordination.k8s.io) that the active bridge holds."""
    kube_lease_namespace: str = "kube-system"
    """The namespace of that Lease."""
    kube_lease_s: float = 9.0
    """Seconds for which the Lease is good; another bridge takes over when it was not renewed for so long."""
    kube_status_per_s: float = 10.0
    """Status writes and Events per second at most."""
    kube_node_grace_s: float = 30.0
    """Seconds that a node's agent may be away or not ready before the node's condition says so."""

    def __post_init__(self) -> None:
        super().__post_init__()
        faults = [
            f"TORTIE_{name.upper()}: must be more than 0, not {value:g}"
            for name in ("kube_stall_s", "kube_retry_max_s", "kube_absent_s", "kube_status_per_s", "kube_page")
            if (value := getattr(self, name)) <= 0
        ]
        if self.kube_lease_s < 3:
            faults.append(f"TORTIE_KUBE_LEASE_S: must be at least 3, not {self.kube_lease_s:g}")
        if faults:
            raise SettingsError(faults)
