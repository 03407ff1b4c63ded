"""What two fields of an object have to do with each other.

Most of it is CEL (`x-kubernetes-validations`), with a message that says what to do. Where a rule would have to look at
the items of a list in a list (the networks and ports of up to 2,048 rules, of 256 and 50 items each) its estimated cost
would be beyond what a server allows; these are schemas under `anyOf`, which cost nothing
(`alternatives`).

CEL is written for the checker of server v1.30: lists of literals are of one type, no string function touches a number
or text (its estimate ignores `maxLength` there), and Kubernetes' own libraries are not used.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus_schemas.manifests.bgp_configuration import FOR_ALL
from bus_schemas.manifests.policy_scopes import DERIVED_PROFILES
from bus_schemas.resources import BGPConfiguration, IPAMConfiguration, Profile, Tier
from bus_schemas.resources.bgp import BGPConfigurationSpec, BGPFilterSpec, BGPPeerSpec, FilterRule
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    EntityRule,
    GlobalNetworkPolicySpec,
    IcmpFields,
    NetworkPolicySpec,
    StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicySpec,
)
from bus_schemas.resources.network_policy import StagedKubernetesNetworkPolicySpec
from bus_schemas.resources.policy_scopes import FIXED_TIERS, HostEndpointSpec, ProfileSpec
from bus_schemas.resources.pools import IPAM_CONFIGURATION, IPPoolSpec
from tortie.crds.address_rules import BGP, FILTER_RULE, PEER, POOL, for_all, of_family
from tortie.crds.cel import Rule, empty, text
from tortie.crds.policy_rules import EGRESS, ENTITY, GLOBAL, INGRESS, RULE, staged

RULES: Mapping[type, tuple[Rule, ...]] = {
    IPPoolSpec: POOL,
    BGPPeerSpec: PEER,
    BGPConfigurationSpec: BGP,
    FilterRule: FILTER_RULE,
    HostEndpointSpec: (
        Rule(
            f"{text('interfaceName')} || !{empty('expectedIPs')}",
            "is required where there are no expectedIPs to find the devices by",
            "interfaceName",
        ),
    ),
    IcmpFields: (Rule("!has(self.code) || has(self.type)", "needs a type", "code"),),
    CalicoRule: RULE,
    EntityRule: ENTITY,
    GlobalNetworkPolicySpec: GLOBAL,
    StagedNetworkPolicySpec: (staged(StagedNetworkPolicySpec, "performanceHints"),),
    StagedGlobalNetworkPolicySpec: (staged(StagedGlobalNetworkPolicySpec, "performanceHints"),),
    StagedKubernetesNetworkPolicySpec: (staged(StagedKubernetesNetworkPolicySpec),),
}
"""By Struct, wherever it stands; those of its bases too."""

ITEM_RULES: Mapping[tuple[type, str], tuple[Rule, ...]] = {
    (NetworkPolicySpec, "ingress"): INGRESS,
    (NetworkPolicySpec, "egress"): EGRESS,
    (ProfileSpec, "ingress"): INGRESS,
    (ProfileSpec, "egress"): EGRESS,
    (BGPFilterSpec, "exportV4"): of_family(4),
    (BGPFilterSpec, "importV4"): of_family(4),
    (BGPFilterSpec, "exportV6"): of_family(6),
    (BGPFilterSpec, "importV6"): of_family(6),
}
"""Of the items of one list."""


def _fixed(name: str) -> Rule:
    fixed = FIXED_TIERS[name]
    assert fixed.order is not None
    order, action = f"{fixed.order:.1f}", fixed.default_action
    return Rule(
        f"self.metadata.name != '{name}' || !has(self.spec) || "
        f"((!has(self.spec.order) || self.spec.order == {order}) && "
        f"(!has(self.spec.defaultAction) || self.spec.defaultAction == '{action}'))",
        f"the tier {name} has the order {fixed.order:.0f} and the default action {action}, and cannot have others",
        "spec",
    )


ROOT_RULES: Mapping[type, tuple[Rule, ...]] = {
    Tier: tuple(map(_fixed, FIXED_TIERS)),
    IPAMConfiguration: (
        Rule(
            f"self.metadata.name == '{IPAM_CONFIGURATION}'",
            f"must be called {IPAM_CONFIGURATION}: there is one for the whole cluster",
        ),
    ),
    BGPConfiguration: (
        Rule(
            f"!self.metadata.name.startsWith('node.') || !has(self.spec) || ({for_all()})",
            f"{', '.join(FOR_ALL)} can be set for the whole cluster only, in the BGPConfiguration default",
            "spec",
        ),
    ),
    Profile: (
        Rule(
            " && ".join(f"!self.metadata.name.startsWith('{prefix}')" for prefix in DERIVED_PROFILES),
            "profiles of namespaces and service accounts are made of these, and cannot be written",
        ),
    ),
}
"""Of an object as a whole: `self.metadata.name` is all that a rule sees of the metadata."""
