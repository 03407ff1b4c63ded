"""What the readers of manifests ask of single fields beyond their type, by Struct and name on the wire.

The names of Structs are those of `bus_schemas.resources`; a Struct that inherits has what its bases have. What is said
here is merged into what the type says; a `pattern` or an `x-kubernetes-int-or-string` takes the place of an enum or a
type. No bound is tighter than the reader's, and the constants are the readers' own.
"""

from __future__ import annotations

from collections.abc import Mapping

from bus_schemas.manifests.bgp_configuration import MAX_PRIORITY, SEVERITIES
from bus_schemas.manifests.bgp_filter import MAX_AS_PATH, MAX_OPERATIONS, MAX_PREPENDED
from bus_schemas.manifests.bgp_filter import MAX_RULES as MAX_FILTER_RULES
from bus_schemas.manifests.bgp_peer import MAX_HOPS, MAX_OWN_AS
from bus_schemas.manifests.bgp_secrets import SECRET_KEY
from bus_schemas.manifests.calico_policy import MAX_RULES
from bus_schemas.manifests.calico_rules import MAX_NETS, MAX_PORTS
from bus_schemas.manifests.configuration import FEATURES, MAX_MTU, MAX_VNI, RATE
from bus_schemas.manifests.policy_scopes import INTERFACE, MAX_INTERFACE, PORT_NAME
from bus_schemas.manifests.pools import MAX_INT32
from bus_schemas.resources.bgp import (
    CLUSTER_ROUTES,
    AddCommunity,
    BGPConfigurationSpec,
    BGPFilterSpec,
    BGPPeerSpec,
    Community,
    FilterRule,
    MatchedCommunities,
    PrefixAdvertisement,
    PrefixLength,
    PrependASPath,
    SecretKeyRef,
    ServiceBlock,
    SetPriority,
)
from bus_schemas.resources.calico_policy import (
    CalicoRule,
    EntityRule,
    GlobalNetworkPolicySpec,
    IcmpFields,
    NetworkPolicySpec,
    ServiceAccountMatch,
    ServiceMatch,
    StagedGlobalNetworkPolicySpec,
    StagedNetworkPolicySpec,
)
from bus_schemas.resources.configuration import FelixConfigurationSpec, ProtoPort
from bus_schemas.resources.network_policy import (
    IPBlock,
    KubernetesNetworkPolicySpec,
    NetworkPolicyPort,
    StagedKubernetesNetworkPolicySpec,
)
from bus_schemas.resources.policy_scopes import (
    HostEndpointPort,
    HostEndpointSpec,
    NetworkSetSpec,
    ProfileSpec,
    TierSpec,
)
from bus_schemas.resources.pools import IPAMConfigurationSpec, IPPoolSpec, IPReservationSpec
from tortie.crds.values import (
    A_DURATION,
    ADDRESS,
    AS_NUMBER,
    AS_NUMBER_OR_NONE,
    CIDR,
    COMMUNITY,
    DEVICES,
    EXCLUDED_NET,
    LABEL,
    LABEL_VALUE,
    NAME,
    NAMESPACE_SELECTOR,
    NET,
    PEER_ADDRESS,
    POOL_CIDR,
    PORT,
    PORT_OR_NAME,
    PORT_PROTOCOL,
    PROTOCOL,
    SELECTOR,
    Schema,
    any_case,
    between,
    each,
    form,
)

_MODE: Schema = {"enum": ["Never", "CrossSubnet", "Always", ""]}
_STAGED: Schema = {"enum": ["Set", "Delete", "Learn", "Ignore", ""]}
_PRIORITY = between(1, MAX_PRIORITY)
_MTU = between(0, MAX_MTU)
_MAY_BE_EMPTY: Schema = {"maxLength": 0}
_TIER: Schema = {"maxLength": 63, "pattern": f"^$|{LABEL['pattern']}"}

FIELDS: Mapping[type, Mapping[str, Schema]] = {
    IPPoolSpec: {
        "cidr": POOL_CIDR,
        "vxlanMode": _MODE,
        "ipipMode": _MODE,
        "blockSize": between(0, 128),
        "nodeSelector": SELECTOR,
        "namespaceSelector": SELECTOR,
        "allowedUses": {"maxItems": 16},
    },
    IPReservationSpec: {"reservedCIDRs": each(NET)},
    IPAMConfigurationSpec: {
        "maxBlocksPerHost": between(0, MAX_INT32),
        "ipCooldownSeconds": between(0, MAX_INT32),
    },
    FelixConfigurationSpec: {
        "vxlanVNI": between(1, MAX_VNI),
        "vxlanPort": PORT,
        "vxlanMTU": _MTU,
        "ipipMTU": _MTU,
        "featureDetectOverride": form(FEATURES),
        "wireguardListeningPort": PORT,
        "wireguardListeningPortV6": PORT,
        "wireguardMTU": _MTU,
        "wireguardMTUV6": _MTU,
        "wireguardKeepAlive": A_DURATION,
        "defaultEndpointToHostAction": any_case("Drop", "Return", "Accept"),
        "natOutgoingExclusions": any_case("IPPoolsOnly", "IPPoolsAndHostIPs"),
        "workloadSourceSpoofing": any_case("Disabled", "Any"),
        "logActionRateLimit": form("", RATE),
        "logActionRateLimitBurst": between(1, 9999),
        "routeRefreshInterval": A_DURATION,
        "nftablesRefreshInterval": A_DURATION,
    },
    ProtoPort: {
        "protocol": any_case("tcp", "udp", "sctp"),
        "port": between(0, 65535),
        "net": {"maxLength": NET["maxLength"], "anyOf": [_MAY_BE_EMPTY, *NET["anyOf"]]},
    },
    BGPConfigurationSpec: {
        "asNumber": AS_NUMBER,
        "logSeverityScreen": any_case(*SEVERITIES),
        "listenPort": PORT,
        "nodeMeshMaxRestartTime": A_DURATION,
        "ignoredInterfaces": each({**DEVICES, "not": {"enum": ["*"]}}),
        "localWorkloadPeeringIPV4": {"anyOf": [_MAY_BE_EMPTY, {"format": "ipv4"}]},
        "localWorkloadPeeringIPV6": {"anyOf": [_MAY_BE_EMPTY, {"format": "ipv6"}]},
        "programClusterRoutes": any_case(*CLUSTER_ROUTES),
        "ipv4NormalRoutePriority": _PRIORITY,
        "ipv6NormalRoutePriority": _PRIORITY,
    },
    SecretKeyRef: {"name": NAME, "key": form(SECRET_KEY)},
    Community: {"value": COMMUNITY},
    PrefixAdvertisement: {"cidr": NET},
    ServiceBlock: {"cidr": NET},
    BGPPeerSpec: {
        "node": {"maxLength": 253, "pattern": f"^$|{NAME['pattern']}"},
        "nodeSelector": SELECTOR,
        "peerIP": PEER_ADDRESS,
        "asNumber": AS_NUMBER_OR_NONE,
        "localASNumber": AS_NUMBER,
        "peerSelector": SELECTOR,
        "localWorkloadSelector": SELECTOR,
        "maxRestartTime": A_DURATION,
        "keepaliveTime": A_DURATION,
        "numAllowedLocalASNumbers": between(0, MAX_OWN_AS),
        "ttlSecurity": between(0, MAX_HOPS),
        "reachableBy": {"maxLength": 64, "anyOf": [_MAY_BE_EMPTY, *ADDRESS["anyOf"]]},
        "filters": each(NAME),
    },
    BGPFilterSpec: {way: {"maxItems": MAX_FILTER_RULES} for way in ("exportV4", "importV4", "exportV6", "importV6")},
    FilterRule: {
        "cidr": CIDR,
        "interface": {"pattern": f"^$|{DEVICES['pattern']}"},
        "asPathPrefix": each(AS_NUMBER, most=MAX_AS_PATH),
        "priority": _PRIORITY,
        "operations": {"maxItems": MAX_OPERATIONS},
    },
    PrefixLength: {"min": between(0, 128), "max": between(0, 128)},
    MatchedCommunities: {"values": {"minItems": 1, **each(COMMUNITY, most=1)}},
    AddCommunity: {"value": COMMUNITY},
    PrependASPath: {"prefix": {"minItems": 1, **each(AS_NUMBER, most=MAX_PREPENDED)}},
    SetPriority: {"value": _PRIORITY},
    TierSpec: {},
    NetworkSetSpec: {"nets": each(NET)},
    HostEndpointSpec: {
        "node": NAME,
        "interfaceName": {"maxLength": MAX_INTERFACE, "pattern": rf"^$|^\*$|^(?:{INTERFACE.pattern})$"},
        "expectedIPs": each(ADDRESS),
        "profiles": each(NAME),
    },
    HostEndpointPort: {"name": form(PORT_NAME), "protocol": PORT_PROTOCOL, "port": PORT},
    ProfileSpec: {
        "ingress": {"maxItems": MAX_RULES},
        "egress": {"maxItems": MAX_RULES},
        "labelsToApply": {"additionalProperties": {"type": "string", **LABEL_VALUE}},
    },
    NetworkPolicySpec: {
        "tier": _TIER,
        "selector": SELECTOR,
        "serviceAccountSelector": SELECTOR,
        "types": {"maxItems": 2, "x-kubernetes-list-type": "set"},
        "ingress": {"maxItems": MAX_RULES},
        "egress": {"maxItems": MAX_RULES},
    },
    GlobalNetworkPolicySpec: {"namespaceSelector": SELECTOR},
    StagedNetworkPolicySpec: {"stagedAction": _STAGED},
    StagedGlobalNetworkPolicySpec: {"stagedAction": _STAGED},
    CalicoRule: {"protocol": PROTOCOL, "notProtocol": PROTOCOL},
    EntityRule: {
        "nets": each(NET, most=MAX_NETS),
        "notNets": each(EXCLUDED_NET, most=MAX_NETS),
        "selector": SELECTOR,
        "notSelector": SELECTOR,
        "namespaceSelector": NAMESPACE_SELECTOR,
        "ports": each(PORT_OR_NAME, most=MAX_PORTS),
        "notPorts": each(PORT_OR_NAME, most=MAX_PORTS),
    },
    ServiceAccountMatch: {"names": each(NAME), "selector": SELECTOR},
    ServiceMatch: {"name": NAME, "namespace": LABEL},
    IcmpFields: {"type": between(0, 254), "code": between(0, 255)},
    KubernetesNetworkPolicySpec: {"policyTypes": {"maxItems": 2}},
    StagedKubernetesNetworkPolicySpec: {"stagedAction": _STAGED},
    IPBlock: {"cidr": CIDR, "except": each(CIDR)},
    NetworkPolicyPort: {
        "port": {
            "x-kubernetes-int-or-string": True,
            **PORT,
            "maxLength": 15,
            "pattern": r"^(?:(?:[0-9]-?)*[a-z](?:-?[a-z0-9])*|[0-9]+(?:-[0-9]+)+)$",
        },
        "endPort": PORT,
    },
}

REQUIRED: Mapping[type, tuple[str, ...]] = {ServiceMatch: ("name",)}
"""What the reader asks for though the Struct has a default for it."""

OPTIONAL: Mapping[type, tuple[str, ...]] = {Community: ("name",)}
"""What the Struct always has and the reader does not ask for."""


NOT_DEFAULTED: Mapping[tuple[type, str], str] = {
    (IPPoolSpec, "allowedUses"): "a pool with a namespaceSelector must not name Tunnel, which is among the default",
    (TierSpec, "defaultAction"): "Deny for most tiers, but Pass for kube-admin and kube-baseline",
    (NetworkPolicySpec, "types"): "computed from which of ingress and egress have rules",
    (KubernetesNetworkPolicySpec, "policyTypes"): "computed from whether egress has rules",
}
"""Defaults of Structs that the server must not write into an object, and why."""
