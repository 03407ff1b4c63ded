"""BGPConfiguration, BGPPeer and BGPFilter as people write them."""

from __future__ import annotations

import pytest

from bus_schemas.resources import BGPConfiguration, BGPPeer
from bus_schemas.resources.bgp import (
    BGPConfigurationSpec,
    BGPPassword,
    Community,
    PrefixAdvertisement,
    SecretKeyRef,
    ServiceBlock,
)
from tests.support.manifests import accepted, faults, manifest, warnings


def configuration(spec: str) -> str:
    return manifest("projectcalico.org/v3", "BGPConfiguration", spec, "{name: default}")


def test_a_configuration_is_read_whole() -> None:
    spec = """
      communities: [{name: ours, value: '64512:100'}]
      prefixAdvertisements: [{cidr: 10.0.0.0/24, communities: [ours, '64512:1:100']}]
      serviceClusterIPs: [{cidr: 10.96.0.0/12}]
      ignoredInterfaces: [eth0, 'docker*']
      listenPort: 179
      nodeMeshMaxRestartTime: 3m
      localWorkloadPeeringIPV6: fd00::1
      programClusterRoutes: enabledipiponly
      nodeMeshPassword: {secretKeyRef: {name: bgp, key: mesh}}
    """
    assert warnings(configuration(spec)) == []
    found = accepted(configuration(spec))
    assert isinstance(found, BGPConfiguration)
    assert found.spec == BGPConfigurationSpec(
        communities=(Community(name="ours", value="64512:100"),),
        prefix_advertisements=(PrefixAdvertisement(cidr="10.0.0.0/24", communities=("ours", "64512:1:100")),),
        service_cluster_ips=(ServiceBlock(cidr="10.96.0.0/12"),),
        ignored_interfaces=("eth0", "docker*"),
        listen_port=179,
        node_mesh_max_restart_time="3m",
        local_workload_peering_ipv6="fd00::1",
        program_cluster_routes="EnabledIPIPOnly",
        node_mesh_password=BGPPassword(secret_key_ref=SecretKeyRef(name="bgp", key="mesh")),
    )


def test_of_a_node_only_what_differs_between_nodes() -> None:
    of_node = manifest("projectcalico.org/v3", "BGPConfiguration", "{asNumber: 1, listenPort: 1}", "{name: node.a}")
    assert faults(of_node) == ["spec.asNumber: can be set for the whole cluster only, in the BGPConfiguration default"]


@pytest.mark.parametrize(
    ("spec", "endpoint"),
    [
        ("{peerIP: 10.0.0.1}", ("10.0.0.1", 0)),
        ("{peerIP: '10.0.0.1:180'}", ("10.0.0.1", 180)),
        ("{peerIP: 'FD00::1'}", ("fd00::1", 0)),
        ("{peerIP: '[fd00::1]:180'}", ("fd00::1", 180)),
        ("{peerSelector: all()}", ("", 0)),
    ],
)
def test_where_a_peer_is(spec: str, endpoint: tuple[str, int]) -> None:
    found = accepted(manifest("projectcalico.org/v3", "BGPPeer", spec))
    assert isinstance(found, BGPPeer)
    assert found.spec.endpoint == endpoint


@pytest.mark.parametrize(
    ("kind", "spec", "fault"),
    [
        ("BGPPeer", "{node: a, nodeSelector: all()}", "spec.nodeSelector: cannot be given together with node"),
        ("BGPPeer", "{localWorkloadSelector: all()}", "spec.asNumber: is required with a localWorkloadSelector"),
        ("BGPPeer", "{peerIP: '10.0.0.1:0'}", "spec.peerIP: must be an address, perhaps with a port"),
        ("BGPPeer", "{reachableBy: 10.0.0.1}", "spec.reachableBy: needs a peerIP"),
        (
            "BGPPeer",
            "{peerIP: 10.0.0.1, password: {secretKeyRef: {name: a, key: ../b}}}",
            "spec.password.secretKeyRef.key: must be a key of a Secret",
        ),
        ("BGPFilter", "{importV4: [{action: Accept, cidr: 10.0.0.0/8}]}", "[0].matchOperator: is required with a cidr"),
        (
            "BGPFilter",
            "{importV4: [{action: Reject, operations: [{setPriority: {value: 1}}]}]}",
            "operations: can only be given with the action Accept",
        ),
        ("BGPFilter", "{importV4: [{action: Accept, communities: {values: []}}]}", "values: must hold one community"),
    ],
)
def test_wrong_peers_and_filters_are_refused(kind: str, spec: str, fault: str) -> None:
    found = faults(manifest("projectcalico.org/v3", kind, spec))
    assert any(fault in text for text in found), found


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{communities: [{name: a, value: '1:2'}]}", "spec.communities: are not used by any"),
        ("{communities: [{name: a}], prefixAdvertisements: [{cidr: 10.0.0.0/8}]}", "communities[0].value: is required"),
        (
            "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: [a]}]}",
            "communities[0]: must be a community or the name of one that is defined, not 'a'",
        ),
        (
            "{prefixAdvertisements: [{cidr: 10.0.0.0/8, communities: ['65536:1']}]}",
            "spec.prefixAdvertisements[0].communities[0]: must be a community",
        ),
        ("{prefixAdvertisements: [{cidr: x}]}", "spec.prefixAdvertisements[0].cidr: must be a CIDR"),
        ("{serviceExternalIPs: [{cidr: x}]}", "spec.serviceExternalIPs[0].cidr: must be a CIDR"),
        ("{ignoredInterfaces: ['*']}", "spec.ignoredInterfaces[0]: must not be every device"),
        ("{localWorkloadPeeringIPV4: 'fd00::1'}", "spec.localWorkloadPeeringIPV4: must be an IPv4 address"),
        (
            "{nodeToNodeMeshEnabled: false, nodeMeshMaxRestartTime: 3m}",
            "spec.nodeMeshMaxRestartTime: cannot be set when nodeToNodeMeshEnabled is false",
        ),
    ],
)
def test_wrong_parameters_are_refused(spec: str, fault: str) -> None:
    found = faults(configuration(spec))
    assert any(fault in text for text in found), found


def test_a_boolean_is_no_number_that_stands_for_nothing() -> None:
    peer = manifest("projectcalico.org/v3", "BGPPeer", "{peerIP: 10.0.0.1, asNumber: false}")
    assert faults(peer) == ["spec.asNumber: must be a whole number, not false"]


def test_a_filter_has_as_many_rules_as_a_policy_may_have() -> None:
    def of(rules: int) -> str:
        return manifest("projectcalico.org/v3", "BGPFilter", f"{{importV4: [{'{action: Accept}, ' * rules}]}}")

    accepted(of(1024))
    assert faults(of(1025)) == ["spec.importV4: must have at most 1024 items, not 1025"]
