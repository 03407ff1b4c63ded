"""Reading pools, nodes and configuration, and the rules between pools."""

from __future__ import annotations

import pytest

from bus_schemas.manifests import validate_against
from bus_schemas.resources import BGPConfiguration, FelixConfiguration, IPPool, Node
from bus_schemas.resources.core import NodeBgp
from tests.support.manifests import accepted, faults, manifest, pool, warnings


def ip_pool(spec: str, name: str = "x") -> IPPool:
    found = accepted(manifest("projectcalico.org/v3", "IPPool", spec, f"{{name: {name}}}"))
    assert isinstance(found, IPPool)
    return found


def test_the_defaults_of_a_pool() -> None:
    spec = ip_pool("{cidr: 10.244.0.0/16}").spec
    assert (spec.block_size, spec.node_selector, spec.namespace_selector) == (26, "all()", "")
    assert (spec.vxlan_mode, spec.ipip_mode, spec.nat_outgoing, spec.disabled) == ("Never", "Never", False, False)
    assert (spec.allowed_uses, spec.assignment_mode) == (("Workload", "Tunnel"), "Automatic")
    assert ip_pool("{cidr: 'FD00::0/48'}").spec.block_size == 122
    assert ip_pool("{cidr: 'FD00::0/48'}").spec.cidr == "fd00::/48"


@pytest.mark.parametrize(
    "spec",
    [
        "{cidr: 10.0.0.0/26}",
        "{cidr: 10.0.0.0/28, blockSize: 28}",
        "{cidr: 10.0.0.0/27, disabled: true}",
        "{cidr: 10.0.0.0/24, blockSize: 0, ipipMode: ''}",
        "{cidr: 10.0.0.0/24, ipipMode: CrossSubnet, vxlanMode: Never}",
        "{cidr: 'fd00::/64', vxlanMode: Always}",
        "{cidr: 10.0.0.0/24, namespaceSelector: a == 'b'}",
        "{cidr: 10.0.0.0/24, allowedUses: [Workload], namespaceSelector: a == 'b'}",
    ],
)
def test_pools(spec: str) -> None:
    assert ip_pool(spec)


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{}", "spec.cidr: is required"),
        ("{cidr: 10.0.0.0}", "spec.cidr: must be a CIDR"),
        ("{cidr: 10.0.0.7/24}", "spec.cidr: has bits set behind the mask: did you mean 10.0.0.0/24?"),
        ("{cidr: 10.0.0.0/27}", "spec.cidr: is smaller than one block of the pool (/26, see blockSize)"),
        ("{cidr: 169.254.0.0/24}", "spec.cidr: must not overlap the link-local addresses 169.254.0.0/16"),
        ("{cidr: 168.0.0.0/6}", "spec.cidr: must not overlap"),
        ("{cidr: 'fe80::/64'}", "spec.cidr: must not overlap the link-local addresses fe80::/10"),
        ("{cidr: 10.0.0.0/8, blockSize: 19}", "spec.blockSize: must be from 20 to 32, not 19"),
        ("{cidr: 10.0.0.0/8, blockSize: 33}", "spec.blockSize: must be from 20 to 32, not 33"),
        ("{cidr: 'fd00::/64', blockSize: 115}", "spec.blockSize: must be from 116 to 128, not 115"),
        ("{cidr: 10.0.0.0/8, blocksize: 26}", "spec.blocksize: unknown field, did you mean 'blockSize'?"),
        ("{cidr: 10.0.0.0/8, nat-outgoing: true}", "spec.nat-outgoing: unknown field, did you mean 'natOutgoing'?"),
        ("{cidr: 10.0.0.0/8, natOutgoing: 'true'}", "spec.natOutgoing: must be true or false, not 'true'"),
        ("{cidr: 10.0.0.0/8, vxlanMode: always}", "spec.vxlanMode: must be one of Never, CrossSubnet, Always"),
        ("{cidr: 10.0.0.0/8, ipip: {enabled: true}}", "spec.ipip: is how Calico's first API said it"),
        ("{cidr: 10.0.0.0/8, vxlanMode: Always, ipipMode: Always}", "spec.vxlanMode: cannot be used together"),
        ("{cidr: 'fd00::/64', ipipMode: Always}", "spec.ipipMode: IP in IP is not possible with IPv6"),
        ("{cidr: 10.0.0.0/8, nodeSelector: a =}", "spec.nodeSelector: not a selector"),
        ("{cidr: 10.0.0.0/8, nodeSelector: global()}", "spec.nodeSelector: global() can only be used"),
        ("{cidr: 10.0.0.0/8, namespaceSelector: global()}", "spec.namespaceSelector: global() can only be used"),
        ("{cidr: 10.0.0.0/8, allowedUses: [Tunnel], namespaceSelector: has(a)}", "cannot be used with the allowed use"),
        ("{cidr: 10.0.0.0/8, allowedUses: [Garbage]}", "spec.allowedUses[0]: must be one of"),
        ("{cidr: 10.0.0.0/8, allowedUses: [LoadBalancer, Tunnel]}", "cannot be combined with other uses"),
        ("{cidr: 10.0.0.0/8, allowedUses: [LoadBalancer], disableBGPExport: true}", "cannot have disableBGPExport"),
        ("{cidr: 10.0.0.0/8, allowedUses: [LoadBalancer], nodeSelector: has(a)}", "cannot have a nodeSelector"),
        ("{cidr: 10.0.0.0/8, allowedUses: [LoadBalancer], vxlanMode: Always}", "cannot have a tunnel mode"),
    ],
)
def test_pools_that_are_refused(spec: str, fault: str) -> None:
    found = faults(pool(spec))
    assert any(fault in text for text in found), found


def test_a_load_balancer_pool() -> None:
    assert ip_pool("{cidr: 10.0.0.0/8, allowedUses: [LoadBalancer]}").spec.allowed_uses == ("LoadBalancer",)


# --- between pools


def against(changed: IPPool, *existing: IPPool) -> list[str]:
    return [f"{fault.path}: {fault.reason}" for fault in validate_against(changed, existing)]


def test_pools_do_not_overlap() -> None:
    other = ip_pool("{cidr: 10.0.0.0/8}", "other")
    assert against(ip_pool("{cidr: 10.1.0.0/16}"), other) == [
        "spec.cidr: 10.1.0.0/16 overlaps the pool other (10.0.0.0/8)"
    ]
    assert against(other, ip_pool("{cidr: 10.1.0.0/16}")) == ["spec.cidr: 10.0.0.0/8 overlaps the pool x (10.1.0.0/16)"]
    assert against(ip_pool("{cidr: 11.0.0.0/16}"), other, ip_pool("{cidr: '::/64'}", "six")) == []


def test_a_pool_may_change_but_not_its_addresses() -> None:
    before = ip_pool("{cidr: 10.0.0.0/16, blockSize: 26}")
    assert against(ip_pool("{cidr: 10.0.0.0/16, vxlanMode: Always, natOutgoing: true}"), before) == []
    assert against(ip_pool("{cidr: 10.0.0.0/17}"), before) == [
        "spec.cidr: would leave blocks of 10.0.0.0/16 without a pool: a pool can only grow, or be split"
    ]
    assert against(ip_pool("{cidr: 10.0.0.0/16, blockSize: 27}"), before) == [
        "spec.blockSize: cannot be changed (it is 26): make a new pool"
    ]


def test_a_pool_may_grow() -> None:
    before = ip_pool("{cidr: 10.0.0.0/16, blockSize: 26}")
    assert against(ip_pool("{cidr: 10.0.0.0/15, blockSize: 26}"), before) == []
    assert against(ip_pool("{cidr: 10.0.0.0/15, blockSize: 26}"), before, ip_pool("{cidr: 10.1.0.0/24}", "other")) == [
        "spec.cidr: 10.0.0.0/15 overlaps the pool other (10.1.0.0/24)"
    ]
    assert against(ip_pool("{cidr: 10.0.0.0/15, blockSize: 27}"), before) == [
        "spec.blockSize: cannot be changed (it is 26): make a new pool"
    ]
    (fault,) = against(ip_pool("{cidr: 'fd00::/64'}"), before)
    assert fault == "spec.cidr: would leave blocks of 10.0.0.0/16 without a pool: a pool can only grow, or be split"


def test_other_kinds_stand_alone() -> None:
    node = accepted("{apiVersion: v1, kind: Node, metadata: {name: a}}")
    assert validate_against(node, [ip_pool("{cidr: 10.0.0.0/8}")]) == ()


# --- nodes


def node_of(text: str) -> Node:
    node = accepted(text)
    assert isinstance(node, Node)
    return node


def test_a_node_as_calico_writes_it() -> None:
    node = node_of(
        """
        apiVersion: projectcalico.org/v3
        kind: Node
        metadata: {name: node1, labels: {rack: a}}
        spec:
          bgp:
            ipv4Address: 10.0.0.15/24
            ipv6Address: "FD00::15/64"
            asNumber: "1.10"
            routeReflectorClusterID: 1.1.1.1
          orchRefs: [{nodeName: node1, orchestrator: k8s}]
          addresses: [{address: 10.0.0.15/24, type: CalicoNodeIP}, {address: 10.0.0.15, type: InternalIP}]
          ipv4VXLANTunnelAddr: 10.244.0.1
        status: {podCIDRs: [10.244.1.0/24]}
        """
    )
    assert node.spec.bgp == NodeBgp(
        ipv4_address="10.0.0.15/24",
        ipv6_address="fd00::15/64",
        as_number=65546,
        route_reflector_cluster_id="1.1.1.1",
    )
    assert (node.address(4), node.address(6)) == ("10.0.0.15/24", "fd00::15/64")
    assert node.spec.pod_cidrs == ("10.244.1.0/24",)


def test_a_node_as_kubernetes_writes_it() -> None:
    node = node_of(
        """
        apiVersion: v1
        kind: Node
        metadata: {name: node1, annotations: {flannel.alpha.coreos.com/backend-type: vxlan}}
        spec: {podCIDR: 10.244.1.0/24, podCIDRs: [10.244.1.0/24, "fd00:1::/64"], taints: [{}]}
        status:
          addresses: [{address: 10.0.0.15, type: InternalIP}, {address: node1.lan, type: Hostname}]
          capacity: {cpu: "4"}
        """
    )
    assert node.spec.bgp is None
    assert node.address(4) == "10.0.0.15/32"
    assert node.spec.pod_cidrs == ("10.244.1.0/24", "fd00:1::/64")
    assert [address.address for address in node.spec.addresses] == ["10.0.0.15", "node1.lan"]


def test_calicos_annotations_on_a_core_node_are_its_bgp() -> None:
    node = node_of(
        "{apiVersion: v1, kind: Node, metadata: {name: a, annotations: "
        "{projectcalico.org/IPv4Address: 10.0.0.15/24, projectcalico.org/ASNumber: '64512'}}}"
    )
    assert node.spec.bgp == NodeBgp(ipv4_address="10.0.0.15/24", as_number=64512)


@pytest.mark.parametrize(
    ("bgp", "fault"),
    [
        ("{}", "spec.bgp: must not be empty"),
        ("{ipv4Address: 'fd00::15/64'}", "spec.bgp.ipv4Address: must be an IPv4 address with its subnet's prefix"),
        ("{ipv6Address: 10.0.0.15/24}", "spec.bgp.ipv6Address: must be an IPv6 address"),
        ("{ipv4Address: 10.0.0.15/33}", "spec.bgp.ipv4Address: must be an IPv4 address"),
        ("{ipv4Address: 10.0.0.15/}", "spec.bgp.ipv4Address: must be an IPv4 address"),
        ("{ipv4Adress: 10.0.0.15/24}", "spec.bgp.ipv4Adress: unknown field, did you mean 'ipv4Address'?"),
        ("{asNumber: 0}", "spec.bgp.asNumber: must be from 1 to 4294967295"),
        ("{asNumber: '70000.1'}", "spec.bgp.asNumber: must be an AS number"),
        ("{routeReflectorClusterID: abcdef}", "spec.bgp.routeReflectorClusterID: must be an IPv4 address"),
        ("{routeReflectorClusterID: 300.34.3.1}", "spec.bgp.routeReflectorClusterID: must be an IPv4 address"),
    ],
)
def test_bgp_that_is_refused(bgp: str, fault: str) -> None:
    found = faults(manifest("projectcalico.org/v3", "Node", f"{{bgp: {bgp}}}"))
    assert any(fault in text for text in found), found


def test_wireguard_of_a_node_is_judged_though_it_has_no_effect() -> None:
    text = manifest("projectcalico.org/v3", "Node", "{wireguard: {interfaceIPv4Address: %s}}")
    assert warnings(text.replace("%s", "10.0.0.1")) == ["spec.wireguard: has no effect here"]
    assert "spec.wireguard.interfaceIPv4Address: must be an IPv4 address, not 'a.b'" in faults(
        text.replace("%s", "a.b")
    )


@pytest.mark.parametrize("key", ["foobar", "?", "a" * 44])
def test_wireguard_keys_are_judged(key: str) -> None:
    text = manifest("projectcalico.org/v3", "Node", "{}") + f"status: {{wireguardPublicKey: '{key}'}}\n"
    assert any("status.wireguardPublicKey: must be the base64 of 32 bytes" in fault for fault in faults(text))


# --- configuration


def test_felix_configuration() -> None:
    found = accepted(
        manifest(
            "projectcalico.org/v3",
            "FelixConfiguration",
            "{vxlanPort: 8472, vxlanVNI: 1, vxlanMTU: 0, defaultEndpointToHostAction: ACCEPT, "
            "routeRefreshInterval: 1m30s, logPrefix: ''}",
        )
    )
    assert isinstance(found, FelixConfiguration)
    spec = found.spec
    assert (spec.vxlan_port, spec.vxlan_vni, spec.vxlan_mtu) == (8472, 1, 0)
    assert (spec.default_endpoint_to_host_action, spec.route_refresh_interval) == ("Accept", "1m30s")
    assert spec.nat_outgoing_exclusions is None


def test_parameters_that_are_not_used_are_named() -> None:
    text = manifest("projectcalico.org/v3", "FelixConfiguration", "{bpfEnabled: false, vxlanport: 1}")
    assert warnings(text) == [
        "spec.bpfEnabled: has no effect here",
        "spec.vxlanport: not used here, ignored (did you mean 'vxlanPort'?)",
    ]


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{vxlanVNI: 0}", "spec.vxlanVNI: must be from 1 to 16777215"),
        ("{vxlanPort: 70000}", "spec.vxlanPort: must be from 1 to 65535"),
        ("{vxlanMTU: -1}", "spec.vxlanMTU: must be from 0 to 65535"),
        ("{vxlanPort: '4789'}", "spec.vxlanPort: must be a whole number, not '4789'"),
        ("{defaultEndpointToHostAction: Deny}", "must be one of Drop, Return, Accept"),
        ("{routeRefreshInterval: 90}", "spec.routeRefreshInterval: must be text, not 90"),
        ("{routeRefreshInterval: 90 s}", "spec.routeRefreshInterval: must be a duration"),
        ("{awsSrcDstCheck: enable}", "spec.awsSrcDstCheck: must be one of DoNothing, Enable, Disable"),
        ("{floatingIPs: enabled}", "spec.floatingIPs: must be one of Enabled, Disabled"),
        (f"{{openstackRegion: {'a' * 47}}}", "spec.openstackRegion: must be a DNS label that still is one"),
    ],
)
def test_felix_configuration_that_is_refused(spec: str, fault: str) -> None:
    found = faults(manifest("projectcalico.org/v3", "FelixConfiguration", spec))
    assert any(fault in text for text in found), found


def test_bgp_configuration() -> None:
    found = accepted(
        manifest(
            "projectcalico.org/v3",
            "BGPConfiguration",
            "{logSeverityScreen: INFO, nodeToNodeMeshEnabled: false, asNumber: 63400}",
            "{name: default}",
        )
    )
    assert isinstance(found, BGPConfiguration)
    assert (found.spec.log_severity_screen, found.spec.node_to_node_mesh_enabled) == ("Info", False)
    assert found.spec.as_number == 63400


def test_a_mesh_password_without_a_mesh_is_refused() -> None:
    spec = "{nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: a, key: b}}}"
    assert faults(manifest("projectcalico.org/v3", "BGPConfiguration", spec)) == [
        "spec.nodeMeshPassword: cannot be set when nodeToNodeMeshEnabled is false"
    ]


def test_a_boolean_is_no_block_size() -> None:
    assert faults(pool("{cidr: 10.0.0.0/16, blockSize: false}")) == [
        "spec.blockSize: must be a whole number, not false"
    ]
