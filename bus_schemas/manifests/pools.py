"""Reading IPPool, IPReservation and IPAMConfiguration, with Calico's rules on what they may be."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Literal

from bus_schemas.manifests.addresses import Network, network
from bus_schemas.manifests.envelope import Envelope, metadata
from bus_schemas.manifests.fields import At, Fields, Unknown, said
from bus_schemas.manifests.selections import selector
from bus_schemas.resources.pools import (
    IPAM_CONFIGURATION,
    IPAMConfiguration,
    IPAMConfigurationSpec,
    IPPool,
    IPPoolSpec,
    IPReservation,
    IPReservationSpec,
)

BLOCK_SIZES = {4: range(20, 33), 6: range(116, 129)}
"""Prefix lengths that a block may have, by family."""
DEFAULT_BLOCK_SIZE = {4: 26, 6: 122}
LINK_LOCAL = {4: ip_network("169.254.0.0/16"), 6: ip_network("fe80::/10")}

MAX_INT32 = 2**31 - 1

_MODES: tuple[Literal["Never", "CrossSubnet", "Always"], ...] = ("Never", "CrossSubnet", "Always")
_USES: tuple[Literal["Workload", "Tunnel", "LoadBalancer"], ...] = ("Workload", "Tunnel", "LoadBalancer")
_ASSIGNMENT: tuple[Literal["Automatic", "Manual"], ...] = ("Automatic", "Manual")
PERSISTENCE = ("Enabled", "Disabled")


def pool(document: Fields, *, stored: bool) -> IPPool:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    cidr = fields.required("cidr", lambda at: network(at, strict=True), None)
    spec = IPPoolSpec(
        cidr="" if cidr is None else str(cidr),
        vxlan_mode=fields.read("vxlanMode", lambda at: _mode(at), "Never"),
        ipip_mode=fields.read("ipipMode", lambda at: _mode(at), "Never"),
        nat_outgoing=fields.boolean("natOutgoing"),
        disabled=fields.boolean("disabled"),
        disable_bgp_export=fields.boolean("disableBGPExport"),
        block_size=_block_size(fields, cidr),
        node_selector=fields.read("nodeSelector", selector, "") or "all()",
        namespace_selector=fields.read("namespaceSelector", selector, ""),
        allowed_uses=tuple(at.choice(_USES) for at in fields.items("allowedUses")) or ("Workload", "Tunnel"),
        assignment_mode=fields.choice("assignmentMode", _ASSIGNMENT, "Automatic"),
    )
    if (at := fields.take("ipip")) is not None:
        at.fault("is how Calico's first API said it: use ipipMode")
    fields.close(Unknown.NEARLY_REFUSED)
    if cidr is not None:
        _check_place(fields, spec, cidr)
        _check_encapsulation(fields, spec, cidr)
    _check_uses(fields, spec)
    return IPPool(metadata=meta, spec=spec)


def _mode(at: At) -> Literal["Never", "CrossSubnet", "Always"]:
    """An empty mode is Never, as in Calico."""
    return "Never" if at.value == "" else at.choice(_MODES)


def _block_size(fields: Fields, cidr: Network | None) -> int:
    at = fields.take("blockSize")
    family = 4 if cidr is None else cidr.version
    if at is None or (type(at.value) is int and at.value == 0):
        return DEFAULT_BLOCK_SIZE[family]
    sizes = BLOCK_SIZES[family] if cidr is not None else range(20, 129)
    return at.integer(sizes.start, sizes.stop - 1)


def _check_place(fields: Fields, spec: IPPoolSpec, cidr: Network) -> None:
    if cidr.overlaps(LINK_LOCAL[cidr.version]):
        fields.place("cidr").fault(f"must not overlap the link-local addresses {LINK_LOCAL[cidr.version]}")
    if cidr.prefixlen > spec.block_size and not spec.disabled:
        fields.place("cidr").fault(f"is smaller than one block of the pool (/{spec.block_size}, see blockSize)")


def _check_encapsulation(fields: Fields, spec: IPPoolSpec, cidr: Network) -> None:
    if spec.ipip_mode != "Never" and spec.vxlan_mode != "Never":
        fields.place("vxlanMode").fault("cannot be used together with ipipMode: one of them must be Never")
    if spec.ipip_mode != "Never" and cidr.version == 6:
        fields.place("ipipMode").fault("IP in IP is not possible with IPv6")


def _check_uses(fields: Fields, spec: IPPoolSpec) -> None:
    if "LoadBalancer" in spec.allowed_uses:
        uses = fields.place("allowedUses")
        if set(spec.allowed_uses) != {"LoadBalancer"}:
            uses.fault("LoadBalancer cannot be combined with other uses")
        if spec.ipip_mode != "Never" or spec.vxlan_mode != "Never":
            uses.fault("a LoadBalancer pool cannot have a tunnel mode")
        if spec.node_selector != "all()":
            uses.fault("a LoadBalancer pool cannot have a nodeSelector")
        if spec.disable_bgp_export:
            uses.fault("a LoadBalancer pool cannot have disableBGPExport")
    if fields.has("allowedUses") and "Tunnel" in spec.allowed_uses and spec.namespace_selector:
        fields.place("namespaceSelector").fault("cannot be used with the allowed use Tunnel: a tunnel has no namespace")


def reservation(document: Fields, *, stored: bool) -> IPReservation:
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    fields = document.fields("spec")
    nets = [found for at in fields.items("reservedCIDRs") if (found := network(at, host=True)) is not None]
    fields.close(Unknown.NEARLY_REFUSED)
    return IPReservation(metadata=meta, spec=IPReservationSpec(reserved_cidrs=tuple(map(_spelt, nets))))


def _spelt(reserved: Network) -> str:
    """A single address as an address."""
    return str(reserved.network_address if reserved.num_addresses == 1 else reserved)


def ipam_configuration(document: Fields, *, stored: bool) -> IPAMConfiguration:
    """Also of the stored kind IPAMConfig, which has the same fields."""
    meta = metadata(document, Envelope(namespaced=False, stored=stored))
    if meta.name and meta.name != IPAM_CONFIGURATION:
        place = document.fields("metadata").place("name")
        place.fault(f"must be {IPAM_CONFIGURATION}: there is one for the whole cluster, not {said(meta.name)}")
    fields = document.fields("spec")
    spec = IPAMConfigurationSpec(
        strict_affinity=fields.maybe("strictAffinity", At.boolean),
        auto_allocate_blocks=fields.maybe("autoAllocateBlocks", At.boolean),
        max_blocks_per_host=fields.integer("maxBlocksPerHost", 0, MAX_INT32),
        ip_cooldown_seconds=fields.integer("ipCooldownSeconds", 0, MAX_INT32),
    )
    if (at := fields.take("kubeVirtVMAddressPersistence")) is not None:
        at.choice(PERSISTENCE)
        at.warn("has no effect here")
    fields.close(Unknown.NEARLY_REFUSED)
    return IPAMConfiguration(metadata=meta, spec=spec)
