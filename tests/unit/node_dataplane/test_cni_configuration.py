"""The network configuration: Calico's and host-local's keys, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest

from services.node_dataplane.cni_configuration import Config, read
from services.node_dataplane.cni_errors import CniError, Code


def config(command: str = "ADD", **fields: Any) -> Config:
    return read({"name": "net", **fields}, "1.0.0", command)


@pytest.mark.parametrize(
    ("ipam", "families", "from_pod_cidr"),
    [
        ({}, (), False),
        ({"type": "calico-ipam"}, (), False),
        ({"type": "tortie-ipam", "assign_ipv4": True}, (4,), False),
        ({"assign_ipv6": "true"}, (4, 6), False),
        ({"assign_ipv4": "false", "assign_ipv6": "TRUE"}, (6,), False),
        ({"assign_ipv6": False}, (4,), False),
        ({"assign_ipv4": ""}, (), False),
        ({"type": "host-local", "subnet": "usePodCidr"}, (4,), True),
        ({"type": "host-local", "subnet": "usePodCidrIPv6"}, (6,), True),
        (
            {"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}], [{"subnet": "usePodCidrIPv6"}]]},
            (4, 6),
            True,
        ),
        ({"type": "host-local", "subnet": "usePodCidr", "routes": [{"dst": "0.0.0.0/0"}]}, (4,), True),
    ],
)
def test_where_addresses_come_from(ipam: dict[str, Any], families: tuple[int, ...], *, from_pod_cidr: bool) -> None:
    found = config(ipam=ipam)
    assert (found.families, found.from_pod_cidr) == (families, from_pod_cidr)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"ipam": {"type": "dhcp"}}, "ipam.type is 'dhcp'"),
        ({"ipam": {"assign_ipv4": "no"}}, "ipam.assign_ipv4"),
        ({"ipam": {"assign_ipv4": False}}, "no family"),
        ({"ipam": {"type": "host-local"}}, "usePodCidr"),
        ({"ipam": {"type": "host-local", "subnet": "10.1.0.0/24"}}, "make it an IPPool"),
        ({"ipam": {"type": "host-local", "subnet": "usePodCidr", "rangeStart": "10.1.0.5"}}, "rangeStart"),
        ({"ipam": {"type": "host-local", "ranges": [{"subnet": "usePodCidr"}]}}, "ipam.ranges"),
        ({"ipam": {"type": "host-local", "subnet": "usePodCidr", "routes": [{"dst": "10.0.0.0/8"}]}}, "ipam.routes"),
        ({"ipam": {"max_blocks_per_host": "3"}}, "max_blocks_per_host"),
        ({"feature_control": {"teleport": True}}, "feature_control.teleport"),
        ({"feature_control": {"floating_ips": "maybe"}}, "feature_control.floating_ips"),
        ({"policy_setup_timeout_seconds": -1}, "policy_setup_timeout_seconds"),
        ({"container_settings": {"allow_ip_forwarding": 1}}, "container_settings.allow_ip_forwarding"),
        ({"container_settings": []}, None),
        ({"nodename": 3}, "nodename"),
        ({"runtimeConfig": {"io.kubernetes.cri.pod-annotations": {"a": 1}}}, "pod-annotations"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any], told: str | None) -> None:
    if told is None:
        config(**fields)
        return
    with pytest.raises(CniError, match=told) as caught:
        config(**fields)
    assert caught.value.code == Code.INVALID_CONFIGURATION
    config("DEL", **fields)  # A pod goes all the same.


def test_the_rest_of_calicos_keys() -> None:
    found = config(
        log_level="info",
        datastore_type="kubernetes",
        kubernetes={"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        policy={"type": "k8s"},
        nodename="node1",
        policy_setup_timeout_seconds=7,
        feature_control={"floating_ips": True, "ip_addrs_no_ipam": False, "other": False},
        container_settings={"allow_ip_forwarding": True},
        ipam={"max_blocks_per_host": 4},
        runtimeConfig={"io.kubernetes.cri.pod-annotations": {"a": "b"}},
    )
    assert (found.nodename, found.policy_wait_s, found.max_blocks) == ("node1", 7.0, 4)
    assert (found.features, found.ip_forwarding, found.annotations) == ({"floating_ips"}, True, {"a": "b"})
    assert config() == Config(version="1.0.0", name="net")
