"""Reading IPReservation and IPAMConfiguration in both of Calico's groups."""

from __future__ import annotations

import pytest

from bus_schemas.manifests import to_manifest
from bus_schemas.resources import IPAMConfiguration, IPReservation
from bus_schemas.resources.pools import IPAMConfigurationSpec
from tests.support.manifests import accepted, faults, manifest, warnings

V3 = "projectcalico.org/v3"
STORED = "crd.projectcalico.org/v1"


@pytest.mark.parametrize("version", [V3, STORED])
def test_reservations_are_kept_in_one_spelling(version: str) -> None:
    found = accepted(
        manifest(version, "IPReservation", "{reservedCIDRs: [10.0.0.1, 10.0.1.7/24, 10.0.0.2/32, 'CAFE::1']}")
    )
    assert isinstance(found, IPReservation)
    assert found.spec.reserved_cidrs == ("10.0.0.1", "10.0.1.0/24", "10.0.0.2", "cafe::1")


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{reservedCIDRs: [garbage]}", "spec.reservedCIDRs[0]: must be a CIDR (like 10.0.0.0/8 or 10.0.0.1)"),
        ("{reservedCIDRs: [10.0.1.0/33]}", "spec.reservedCIDRs[0]: must be a CIDR"),
        ("{reservedCIDRs: 10.0.0.1}", "spec.reservedCIDRs: must be a list"),
        ("{reservedCidrs: [10.0.0.1]}", "spec.reservedCidrs: unknown field, did you mean 'reservedCIDRs'?"),
    ],
)
def test_reservations_that_are_refused(spec: str, fault: str) -> None:
    assert any(text.startswith(fault) for text in faults(manifest(V3, "IPReservation", spec)))


def test_a_reservation_of_nothing() -> None:
    assert accepted(manifest(V3, "IPReservation", "{}")).metadata.name == "x"


@pytest.mark.parametrize(("version", "kind"), [(V3, "IPAMConfiguration"), (STORED, "IPAMConfig")])
def test_configuration_in_both_groups(version: str, kind: str) -> None:
    spec = "{strictAffinity: true, autoAllocateBlocks: false, maxBlocksPerHost: 0, ipCooldownSeconds: 60}"
    found = accepted(manifest(version, kind, spec, "{name: default}"))
    assert isinstance(found, IPAMConfiguration)
    assert found.spec == IPAMConfigurationSpec(
        strict_affinity=True, auto_allocate_blocks=False, max_blocks_per_host=0, ip_cooldown_seconds=60
    )
    assert to_manifest(found)["apiVersion"] == V3
    assert to_manifest(found)["kind"] == "IPAMConfiguration"


def test_what_the_configuration_leaves_out_is_not_set() -> None:
    found = accepted(manifest(V3, "IPAMConfiguration", "{}", "{name: default}"))
    assert isinstance(found, IPAMConfiguration)
    assert found.spec == IPAMConfigurationSpec()
    assert to_manifest(found)["spec"] == {}


@pytest.mark.parametrize(
    ("spec", "fault"),
    [
        ("{maxBlocksPerHost: -1}", "spec.maxBlocksPerHost: must be from 0 to 2147483647, not -1"),
        ("{strictAffinity: 'true'}", "spec.strictAffinity: must be true or false, not 'true'"),
        ("{ipCooldownSeconds: 1.5}", "spec.ipCooldownSeconds: must be a whole number"),
        ("{StrictAffinity: true}", "spec.StrictAffinity: unknown field, did you mean 'strictAffinity'?"),
        ("{kubeVirtVMAddressPersistence: Perhaps}", "spec.kubeVirtVMAddressPersistence: must be one of Enabled"),
    ],
)
def test_configurations_that_are_refused(spec: str, fault: str) -> None:
    (found,) = faults(manifest(V3, "IPAMConfiguration", spec, "{name: default}"))
    assert found.startswith(fault)


def test_there_is_one_configuration() -> None:
    assert faults(manifest(V3, "IPAMConfiguration", "{}", "{name: mine}")) == [
        "metadata.name: must be default: there is one for the whole cluster, not 'mine'"
    ]


def test_virtual_machines_are_not_known_here() -> None:
    text = manifest(V3, "IPAMConfiguration", "{kubeVirtVMAddressPersistence: Enabled}", "{name: default}")
    assert warnings(text) == ["spec.kubeVirtVMAddressPersistence: has no effect here"]
