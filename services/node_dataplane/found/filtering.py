"""Whether packets that are switched from port to port of a bridge come through the policy table (br_netfilter), in the
network namespace of the calling thread.

kube-proxy needs the same; so it is on nearly everywhere where flannel is. Where it can be switched on it is, with an
event. Where it cannot, the table of the bridge closes its pods to one another, and health says what to do.
"""

from __future__ import annotations

from collections.abc import Callable

from services.node_dataplane import sysctl

SETTINGS = {"ip": "bridge/bridge-nf-call-iptables", "ip6": "bridge/bridge-nf-call-ip6tables"}
"""By the protocol's name in nft, below /proc/sys/net."""


def ensure(report: Callable[[str, str, str], None]) -> dict[str, str]:
    """Protocols that are bridged past the policy table, and why. `report(what, object, message)` emits an event."""
    missing = {}
    for protocol, path in SETTINGS.items():
        name = f"net.{path.replace('/', '.')}"
        try:
            if sysctl.read(path) == "1":
                continue
            sysctl.write([(path, "1")])
        except FileNotFoundError:
            missing[protocol] = f"there is no {name}: load the kernel's module br_netfilter (modprobe br_netfilter)"
        except OSError as error:
            missing[protocol] = f"{name} is 0 and cannot be set ({error.strerror}): set it to 1"
        else:
            report("repaired", name, f"{name} was 0: policy was blind for what a bridge switches; it is 1 now.")
    return missing
