"""Rules about pools and BGP."""

from __future__ import annotations

from bus_schemas.manifests.bgp_configuration import FOR_ALL, WITH_MESH
from bus_schemas.manifests.pools import BLOCK_SIZES, DEFAULT_BLOCK_SIZE
from bus_schemas.resources.bgp import BGPConfigurationSpec
from tortie.crds.cel import Rule, empty, is_empty, no_text, not_true, text


def _block_size(of: str) -> str:
    """The prefix length of a pool's blocks, given or by default."""
    default = f"({of}.cidr.contains(':') ? {DEFAULT_BLOCK_SIZE[6]} : {DEFAULT_BLOCK_SIZE[4]})"
    return f"(has({of}.blockSize) && {of}.blockSize != 0 ? {of}.blockSize : {default})"


def _prefix(of: str) -> str:
    return f"int({of}.cidr.split('/')[1])"


def _in(family: int) -> str:
    sizes = BLOCK_SIZES[family]
    return f"(self.blockSize >= {sizes.start} && self.blockSize <= {sizes.stop - 1})"


_IPIP = "(has(self.ipipMode) && self.ipipMode in ['CrossSubnet', 'Always'])"
_VXLAN = "(has(self.vxlanMode) && self.vxlanMode in ['CrossSubnet', 'Always'])"
_LOAD_BALANCER = "(has(self.allowedUses) && 'LoadBalancer' in self.allowedUses)"

POOL = (
    Rule(
        f"!{_IPIP} || !{_VXLAN}",
        "cannot be used together with ipipMode: one of them must be Never",
        "vxlanMode",
    ),
    Rule(f"!{_IPIP} || !self.cidr.contains(':')", "IP in IP is not possible with IPv6", "ipipMode"),
    Rule(
        f"!has(self.blockSize) || self.blockSize == 0 || (self.cidr.contains(':') ? {_in(6)} : {_in(4)})",
        "must be from 20 to 32 with IPv4, from 116 to 128 with IPv6",
        "blockSize",
    ),
    Rule(
        f"(has(self.disabled) && self.disabled) || {_prefix('self')} <= {_block_size('self')}",
        "is smaller than one block of the pool (blockSize)",
        "cidr",
    ),
    Rule(
        f"!{_LOAD_BALANCER} || self.allowedUses.all(use, use == 'LoadBalancer')",
        "LoadBalancer cannot be combined with other uses",
        "allowedUses",
    ),
    Rule(
        f"!{_LOAD_BALANCER} || (!{_IPIP} && !{_VXLAN} && {not_true('disableBGPExport')} && "
        "(!has(self.nodeSelector) || self.nodeSelector in ['', 'all()']))",
        "a LoadBalancer pool cannot have a tunnel mode, a nodeSelector or disableBGPExport",
        "allowedUses",
    ),
    Rule(
        "!has(self.allowedUses) || !('Tunnel' in self.allowedUses) || " + no_text("namespaceSelector"),
        "cannot be used with the allowed use Tunnel: a tunnel has no namespace",
        "namespaceSelector",
    ),
    Rule(
        f"self.cidr.contains(':') == oldSelf.cidr.contains(':') && {_prefix('self')} <= {_prefix('oldSelf')}",
        "a pool can only grow, or be split: its blocks would be left without a pool",
        "cidr",
    ),
    Rule(
        f"{_block_size('self')} == {_block_size('oldSelf')}",
        "cannot be changed: make a new pool",
        "blockSize",
    ),
    Rule(
        f"{_LOAD_BALANCER} == {_LOAD_BALANCER.replace('self.', 'oldSelf.')}",
        "LoadBalancer cannot be added or removed: make a new pool",
        "allowedUses",
    ),
)

PEER = (
    Rule(f"{no_text('node')} || {no_text('nodeSelector')}", "cannot be given together with node", "nodeSelector"),
    Rule(f"{no_text('peerSelector')} || {no_text('peerIP')}", "cannot be given together with peerSelector", "peerIP"),
    Rule(
        f"{no_text('peerSelector')} || !has(self.asNumber) || self.asNumber == 0",
        "cannot be given together with peerSelector",
        "asNumber",
    ),
    Rule(
        f"{no_text('localWorkloadSelector')} || ({no_text('peerIP')} && {no_text('peerSelector')})",
        "cannot be given together with peerIP or peerSelector",
        "localWorkloadSelector",
    ),
    Rule(
        f"{no_text('localWorkloadSelector')} || (has(self.asNumber) && self.asNumber != 0 && self.asNumber != '0')",
        "is required with a localWorkloadSelector",
        "asNumber",
    ),
    Rule(
        f"{not_true('keepOriginalNextHop')} || !has(self.nextHopMode)",
        "is the older word for nextHopMode: only one of them can be given",
        "keepOriginalNextHop",
    ),
    Rule(
        f"{no_text('reachableBy')} || {text('peerIP')}",
        "needs a peerIP, the address that is reached by it",
        "reachableBy",
    ),
    Rule(
        f"{no_text('reachableBy')} || {no_text('peerIP')} || "
        "self.reachableBy.contains(':') == self.peerIP.matches(':.*:')",
        "must be of the family of the peerIP",
        "reachableBy",
    ),
)

BGP = (
    Rule(
        f"{empty('communities')} || !{empty('prefixAdvertisements')}",
        "are not used by any of the prefixAdvertisements",
        "communities",
    ),
    *(
        Rule(
            f"!has(self.{name}) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled",
            "cannot be set when nodeToNodeMeshEnabled is false",
            name,
        )
        for name in WITH_MESH
    ),
)


def for_all() -> str:
    """The fields of a whole cluster are not given."""
    return " && ".join(is_empty(BGPConfigurationSpec, name) for name in FOR_ALL).replace("self.", "self.spec.")


FILTER_RULE = (
    Rule("!has(self.cidr) || has(self.matchOperator)", "is required with a cidr", "matchOperator"),
    Rule("!has(self.matchOperator) || has(self.cidr)", "is required with a matchOperator", "cidr"),
    Rule("!has(self.prefixLength) || has(self.cidr)", "is required with a prefixLength", "cidr"),
    Rule(
        "!has(self.prefixLength) || !has(self.prefixLength.min) || !has(self.prefixLength.max) || "
        "self.prefixLength.min <= self.prefixLength.max",
        "min must not be more than max",
        "prefixLength",
    ),
    Rule(f"{empty('operations')} || self.action == 'Accept'", "can only be given with the action Accept", "operations"),
)


def of_family(family: int) -> tuple[Rule, ...]:
    colon = "self.cidr.contains(':')" if family == 6 else "!self.cidr.contains(':')"
    rules = [Rule(f"!has(self.cidr) || {colon}", f"must be an IPv{family} CIDR", "cidr")]
    if family == 4:
        ends = " && ".join(
            f"(!has(self.prefixLength.{end}) || self.prefixLength.{end} <= 32)" for end in ("min", "max")
        )
        rules.append(Rule(f"!has(self.prefixLength) || ({ends})", "must be from 0 to 32", "prefixLength"))
    return tuple(rules)
