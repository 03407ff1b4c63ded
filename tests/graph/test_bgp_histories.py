"""Any history of nodes, peers, configurations, filters, pools, blocks and services ends like its last world told
afresh."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from bus_schemas.resources.bgp import FilterRule, ServiceBlock
from bus_schemas.subjects import Fact
from tests.support.expanders import gone
from tests.support.routes import pool
from tests.support.speakers import (
    Told,
    balanced,
    bgp_filter,
    configuration,
    endpoint_slice,
    peer,
    service,
    speaking,
)

NODES = ("n1", "n2", "n3", "n4")
BLOCKS = ("10.0.0.0/26", "10.0.0.64/26", "10.0.1.7/32")

node = st.builds(
    speaking,
    st.sampled_from(NODES),
    st.sampled_from(("", "192.0.2.1/24", "192.0.2.2/24", "192.0.2.3/24")),
    st.sampled_from(("", "fd00::1/64", "fd00::2/64")),
    labels=st.sampled_from(({}, {"rr": ""}, {"rack": "1"})),
    as_number=st.sampled_from((None, 64999)),
    cluster=st.sampled_from(("", "", "1.1.1.1")),
)
settings_ = st.builds(
    configuration,
    st.sampled_from(("default", "default", "node.n1", "odd")),
    listen_port=st.sampled_from((None, 180)),
    node_to_node_mesh_enabled=st.sampled_from((None, False)),
)
peering = st.one_of(
    st.builds(
        peer,
        st.sampled_from(("p", "q")),
        node_selector=st.sampled_from(("", "has(rack)", "!has(rr)", "all()")),
        peer_selector=st.sampled_from(("has(rr)", "all()")),
        reverse_peering=st.sampled_from((None, "Manual")),
        filters=st.sampled_from(((), ("f",))),
    ),
    st.builds(
        peer,
        st.sampled_from(("p", "q")),
        node=st.sampled_from(("", "n1")),
        peer_ip=st.sampled_from(("192.0.2.1", "192.0.2.9:180", "fd00::2")),
        as_number=st.sampled_from((None, 65001)),
        filters=st.sampled_from(((), ("f", "g"))),
    ),
    st.builds(peer, st.just("w"), local_workload_selector=st.just("all()"), as_number=st.just(65002)),
)
filter_ = st.builds(
    bgp_filter,
    st.sampled_from(("f", "g")),
    import_v4=st.sampled_from(((), (FilterRule(action="Reject"),))),
)
pool_ = st.builds(pool, st.sampled_from(("a", "b")), st.sampled_from(("10.0.0.0/16", "10.1.0.0/16")))
ranges = st.builds(
    configuration,
    service_cluster_ips=st.sampled_from(((), (ServiceBlock(cidr="10.96.0.0/16"),))),
    service_load_balancer_ips=st.just((ServiceBlock(cidr="203.0.113.0/24"), ServiceBlock(cidr="203.0.113.9/32"))),
    service_load_balancer_aggregation=st.sampled_from((None, "Disabled")),
)
service_ = st.builds(
    service,
    st.sampled_from(("s", "t")),
    type=st.sampled_from(("ClusterIP", "LoadBalancer")),
    cluster_ips=st.sampled_from(((), ("10.96.0.1",), ("10.96.0.1", "fd00:96::1"))),
    external_traffic_policy=st.sampled_from(("Cluster", "Local")),
)
slice_ = st.builds(
    endpoint_slice,
    st.sampled_from(("x", "y")),
    st.sampled_from(("s", "t", "")),
    st.sampled_from((*NODES, "")),
    ready=st.booleans(),
)
balanced_ = st.builds(balanced, st.sampled_from(("s", "t")), st.sampled_from(("203.0.113.5", "203.0.113.9")))
of_services = st.one_of(ranges, service_, slice_, slice_, balanced_)
told = st.tuples(
    st.one_of(node, node, settings_, peering, filter_, pool_, of_services), st.sampled_from((True, True, True, False))
)
led = st.tuples(st.sampled_from(BLOCKS), st.sampled_from((None, *NODES)))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.one_of(told, led), max_size=25))
def test_histories(history: list[tuple[Fact, bool] | tuple[str, str | None]]) -> None:
    slow, world, owners = Told(), dict[object, Fact](), dict[str, str]()
    for step, what in history:
        if isinstance(step, str):
            assert not isinstance(what, bool)
            slow.lead(step, what, borrowed=step.endswith("/32"))
            owners.pop(step, None)
            if what is not None:
                owners[step] = what
        elif what:
            world[step.family, step.key] = step
            slow.tell(step)
        else:
            world.pop((step.family, step.key), None)
            slow.tell(gone(step))
    fresh = Told(*reversed(world.values()))
    for cidr, owner in owners.items():
        fresh.lead(cidr, owner, borrowed=cidr.endswith("/32"))
    assert (slow.speakers, slow.members) == (fresh.speakers, fresh.members)
