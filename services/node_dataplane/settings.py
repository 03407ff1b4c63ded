"""Settings of the node's agent: environment variables `TORTIE_<FIELD>`."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from bus_schemas.ids import NodeName
from chassis.errors import SettingsError
from chassis.settings import ServiceSettings
from services.node_dataplane.autodetection import Asked, asked
from services.node_dataplane.service_proxy import node_ports


class Settings(ServiceSettings, frozen=True, kw_only=True):
    node: str = ""
    """This node's name, as the Node resource has it. Default: `instance`."""
    state_dir: str = "/var/lib/tortie"
    """What must survive a restart: the pods that are plugged in."""
    cni_socket: str = "/run/tortie/cni.sock"
    """Where the CNI plugin finds the agent."""
    uplink: str = ""
    """The device that leads to the other nodes: only its addresses count. Default: any device."""
    ip: str = "autodetect"
    """The node's IPv4 address, with or without a subnet, where the Node resource has no `spec.bgp.ipv4Address`:
    `autodetect`, `none`, or the address."""
    ip6: str = "autodetect"
    """The same for IPv6."""
    ip_autodetection_method: str = "auto"
    """How `autodetect` finds the IPv4 address: `first-found`, `kubernetes-internal-ip`, `can-reach=ADDRESS-OR-NAME`,
    `interface=REGEX,...`, `skip-interface=REGEX,...` or `cidr=CIDR,...`, as with Calico; or `auto`: the InternalIP of
    the Node resource, else of the device of the default route, else as `first-found`."""
    ip6_autodetection_method: str = "auto"
    """The same for IPv6."""
    cni_deadline_s: float = 30.0
    """After this many seconds an ADD that is not done is undone, and its error says what was missing."""
    warm_addresses: int = 4
    """So many addresses (pairs, where pods have both families) are kept assigned ahead, so that a pod does not wait for
    the address service, nor for the bus. Four are a sixteenth of a block of the usual size, and more than start on one
    node within the few milliseconds that it takes to replace one. 0: none."""
    warm_idle_s: float = 7200.0
    """They are given back when no pod was started here for so many seconds: longer than the pause between two runs of
    an hourly job. 0: never."""
    outage_add: Literal["start-closed", "refuse"] = "start-closed"
    """What becomes of a pod that starts while the bus is away. `start-closed`: it gets a warm address and starts, but
    its link passes nothing until its policy has come, seconds after the bus is back; a refused pod would be tried again
    by its runtime ever more seldom. `refuse`: its ADD fails as soon as the deadline has passed."""
    self_check_s: float = 2.0
    """Seconds between two looks at the kernel for what somebody else broke."""
    vxlan_checksum_offload: Literal["auto", "on", "off"] = "auto"
    """Transmit checksum offload of the tunnel device. `auto` switches it off where this kernel, tried out, gets the
    checksums of tunnelled packets wrong, and where kernel or driver are known to (`tortie node explain`)."""
    existing_connections: Literal["keep", "cut"] = "keep"
    """What becomes of connections that a changed policy no longer allows, where neither the policy nor
    FelixConfiguration `default` says (annotation `tortie.io/existing-connections`)."""
    denied_events_per_s: int = 20
    """At most so many different denied connections become events each second; the rest is told as a number. 0: none,
    and the kernel does not report them."""
    hits_interval_s: float = 15.0
    """Seconds between two readings of what the policies decided (`tortie policy hits`, metrics). 0: never."""
    policy_metrics: bool = True
    """Whether /metrics shows the decisions of each policy; one series for each policy, direction and verdict that came
    to pass."""
    service_addresses: bool = False
    """Whether this node translates the addresses of Services (cluster addresses, node ports, external ones and those of
    load balancers) to their endpoints, as kube-proxy does. Not beside kube-proxy."""
    node_port_addresses: str = "primary"
    """On which of the node's addresses node ports are served: `primary`, those by which other nodes know it, or CIDRs,
    separated by commas (`0.0.0.0/0,::/0`: all but the loopback)."""
    policy_only: bool = False
    """Addresses, links and routes are somebody else's (flannel's), only policy is ours: no CNI socket, nothing asked of
    ipam, no route, tunnel or BGP. The node's pods are those that the bus has, their links are found by address."""
    pod_networks: str = ""
    """Policy only: the networks in which this node's pods have addresses, `CIDR,...`: what is in them and is no known
    pod's is closed. Default: the Node's podCIDRs."""

    bgp_secrets_dir: str = ""
    """Where the Secrets with passwords of BGP sessions are mounted: `<directory>/<secret>/<key>`. Empty: nowhere, and
    sessions that need a password are left out."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warm_addresses < 0 or self.warm_idle_s < 0:
            raise SettingsError(["TORTIE_WARM_ADDRESSES, TORTIE_WARM_IDLE_S: must not be negative"])
        try:
            self.asked()
        except ValueError as error:
            raise SettingsError([str(error)]) from None
        try:
            node_ports.read(self.node_port_addresses)
        except ValueError as error:
            raise SettingsError([f"TORTIE_NODE_PORT_ADDRESSES: {error}"]) from None
        if self.policy_only and self.service_addresses:
            raise SettingsError(["TORTIE_SERVICE_ADDRESSES: not with TORTIE_POLICY_ONLY; there kube-proxy does it"])
        for text in self.networks:
            try:
                ip_network(text, strict=False)
            except ValueError as error:
                raise SettingsError([f"TORTIE_POD_NETWORKS: {error}"]) from None
        if self.denied_events_per_s < 0 or self.hits_interval_s < 0:
            raise SettingsError(["TORTIE_DENIED_EVENTS_PER_S, TORTIE_HITS_INTERVAL_S: must not be negative"])

    def asked(self) -> dict[int, Asked]:
        """By family, what decides about the node's address while the Node resource says nothing. Raises ValueError."""
        return {
            4: asked(4, "TORTIE_IP", self.ip, self.ip_autodetection_method, self.uplink),
            6: asked(6, "TORTIE_IP6", self.ip6, self.ip6_autodetection_method, self.uplink),
        }

    @property
    def addressing(self) -> dict[str, str]:
        """What is set about addresses and checksums, by variable."""
        return {
            "TORTIE_IP": self.ip,
            "TORTIE_IP_AUTODETECTION_METHOD": self.ip_autodetection_method,
            "TORTIE_IP6": self.ip6,
            "TORTIE_IP6_AUTODETECTION_METHOD": self.ip6_autodetection_method,
            "TORTIE_UPLINK": self.uplink,
            "TORTIE_VXLAN_CHECKSUM_OFFLOAD": self.vxlan_checksum_offload,
        }

    @property
    def networks(self) -> tuple[str, ...]:
        """`pod_networks` one by one."""
        return tuple(filter(None, map(str.strip, self.pod_networks.split(","))))

    @property
    def node_name(self) -> NodeName:
        return NodeName(self.node or self.instance)
