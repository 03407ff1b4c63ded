"""BGPConfiguration: what nothing here uses is judged all the same."""

from __future__ import annotations

import pytest

from tests.support.manifests import faults, manifest, warnings


def configuration(spec: str) -> str:
    return manifest("projectcalico.org/v3", "BGPConfiguration", spec, "{name: default}")


def test_what_has_no_effect_is_a_warning() -> None:
    spec = """
      communities: [{name: ours, value: '64512:100'}]
      prefixAdvertisements: [{cidr: 10.0.0.0/24, communities: [ours, '64512:1:100']}]
      serviceClusterIPs: [{cidr: 10.96.0.0/12}]
      ignoredInterfaces: [eth0, 'docker*']
      listenPort: 179
      nodeMeshMaxRestartTime: 3m
      localWorkloadPeeringIPV6: fd00::1
    """
    found = warnings(configuration(spec))
    assert len(found) == 7
    assert all("has no effect here" in warning for warning in found)


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
        ("{ignoredInterfaces: ['*']}", "spec.ignoredInterfaces[0]: must be a device's name"),
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
