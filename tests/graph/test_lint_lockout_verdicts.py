"""What lint takes for shut out is denied by compiled policy, whoever asks: no false alarms."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.lint import Landscape
from bus_schemas.lint.host_policy import Door, closed
from bus_schemas.policy import HostAttachment
from bus_schemas.resources import GlobalNetworkPolicy, GlobalNetworkSet, HostEndpoint, Profile
from bus_schemas.subjects import Fact
from bus_schemas.verdicts import Flow, decide
from tests.support.random_worlds import (
    ADDRESSES,
    HOST_ADDRESSES,
    NOWHERE,
    OUTSIDE,
    global_specs,
    host_specs,
    labelled,
    labels,
    policies,
    policy_fact,
    policy_names,
    profile_specs,
    set_specs,
)
from tortie.policy.offline import OfflineCluster

PORTS = ((6, 22), (6, 80), (17, 53))

hosts = st.builds(labelled, st.just(HostEndpoint), NOWHERE, st.just("h"), labels, host_specs)
around = (
    st.builds(labelled, st.just(GlobalNetworkSet), NOWHERE, policy_names, labels, set_specs)
    | st.builds(policy_fact, st.just(Profile), NOWHERE, st.sampled_from(("open", "shut")), profile_specs)
    | policies(GlobalNetworkPolicy, NOWHERE, st.sampled_from(("p1", "p2", "p3")), global_specs())
    | policies(GlobalNetworkPolicy, NOWHERE, st.sampled_from(("p1", "p2", "p3")), global_specs())
)


@settings(max_examples=200, deadline=None)
@given(hosts, st.lists(around, min_size=1, max_size=5), st.sampled_from(PORTS))
def test_what_is_shut_out_is_denied_to_everybody(host: Fact, beside: list[Fact], port: tuple[int, int]) -> None:
    facts = {(type(fact.value), fact.key): fact.value for fact in (host, *beside)}
    resources = list(facts.values())
    cluster = OfflineCluster(resources)
    cluster.settle()
    ((_, attachment),) = cluster.hosts.items()
    landscape = Landscape.from_resources(resources, cluster=True)
    (endpoint,) = landscape.hosts
    for far in (None, *map(ip_address, (*ADDRESSES, *OUTSIDE.values()))):
        if closed(endpoint, Door("ingress", *port, far=far), landscape) is None:
            continue
        for source in (far,) if far is not None else map(ip_address, (*ADDRESSES, *OUTSIDE.values())):
            for own in map(ip_address, endpoint.spec.expected_ips or HOST_ADDRESSES):
                if own.version == source.version:
                    flow = Flow(source.packed, own.packed, port[0], 40000, port[1])
                    assert not _comes_in(attachment, flow, cluster), (flow, far)


def _comes_in(host: HostAttachment, flow: Flow, cluster: OfflineCluster) -> bool:
    early = (host.untracked_ingress,) if host.interface != "*" else ()
    for direction in (*early, host.pre_dnat_ingress):
        verdict = decide(direction, "ingress", flow, cluster.world)
        if verdict.action == "deny" or verdict.decision.kind == "policy":
            return verdict.action == "allow"
    return decide(host.ingress, "ingress", flow, cluster.world).action == "allow"
