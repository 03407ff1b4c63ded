"""Which pod has which link: worlds of pods and links, and who is joined."""

from __future__ import annotations

import pytest

from bus_schemas.ids import NodeName, PodKey
from bus_schemas.resources import Pod
from bus_schemas.resources.core import PodSpec, PodStatus
from bus_schemas.resources.metadata import Metadata
from services.node_dataplane.found.agent import guarded
from services.node_dataplane.found.residents import Bridge, Residents, Seen, Veth, View
from services.node_dataplane.nft.bridge import BridgeRules, Port

CNI0 = 9
BRIDGES = {CNI0: Bridge("cni0", ("10.244.1.1/24", "fe80::1/64"))}
A, B = PodKey("default", "a"), PodKey("default", "b")


def pod(name: str, *addresses: str, uid: str = "", node: str = "n1", phase: str = "Running", host: bool = False) -> Pod:
    return Pod(
        metadata=Metadata(name=name, namespace="default", uid=uid or f"uid-{name}"),
        spec=PodSpec(node_name=node, host_network=host),
        status=PodStatus(phase=phase, pod_ips=addresses),
    )


def veth(device: int, *addresses: str, master: int = CNI0) -> Veth:
    return Veth(device, f"veth{device}", bytes((2, 0, 0, 0, 0, device)), master, frozenset(addresses))


class World:
    def __init__(self, *networks: str) -> None:
        self.residents = Residents(NodeName("n1"), networks)

    def tell(self, *pods: Pod) -> World:
        for one in pods:
            self.residents.set_pod(PodKey("default", one.metadata.name), one)
        return self

    def gone(self, key: PodKey) -> World:
        self.residents.set_pod(key, None)
        return self

    def see(self, *veths: Veth, bridges: dict[int, Bridge] = BRIDGES) -> View:
        self.residents.set_seen(Seen(veths, bridges))
        return self.residents.flush()


def links(view: View) -> dict[str, str]:
    return {key.name: resident.veth.name for key, resident in view.residents.items()}


def test_a_pod_has_the_link_that_has_all_of_its_addresses() -> None:
    world = World().tell(pod("a", "10.244.1.2", "fd00::2"))
    view = world.see(veth(2, "10.244.1.2"), veth(3, "10.244.1.2", "fd00:0::2", "10.9.9.9"))
    assert links(view) == {}, "as Python spells addresses, fd00:0::2 is another text"
    view = world.see(veth(2, "10.244.1.2"), veth(3, "10.244.1.2", "fd00::2", "10.9.9.9"))
    assert links(view) == {"a": "veth3"}
    endpoint = view.residents[A].endpoint
    assert (endpoint.container, endpoint.link, endpoint.addresses) == ("uid-a", "veth3", ("10.244.1.2", "fd00::2"))
    assert view.residents[A].device == CNI0


@pytest.mark.parametrize(
    "other",
    [
        pod("a", "10.244.1.2", node="n2"),
        pod("a", "10.244.1.2", host=True),
        pod("a", "10.244.1.2", phase="Succeeded"),
        pod("a", "10.244.1.2", phase="Failed"),
        pod("a"),
        pod("a", "nonsense"),
    ],
)
def test_who_is_nobody_here(other: Pod) -> None:
    view = World().tell(other).see(veth(2, "10.244.1.2"))
    assert not view.residents
    assert not view.missing


def test_in_doubt_it_is_nobodys() -> None:
    view = World().tell(pod("a", "10.244.1.2"), pod("b", "10.244.1.2")).see(veth(2, "10.244.1.2"))
    assert view.missing == {A: "default/b has 10.244.1.2, too", B: "default/a has 10.244.1.2, too"}
    view = World().tell(pod("a", "10.244.1.2")).see(veth(2, "10.244.1.2"), veth(3, "10.244.1.2"))
    assert view.missing == {A: "10.244.1.2 is behind more than one link: veth2, veth3"}
    view = World().tell(pod("a", "10.244.1.2")).see()
    assert view.missing == {A: "no link of this node leads to 10.244.1.2"}


def test_what_was_joined_stays_though_another_link_gets_the_address() -> None:
    world = World().tell(pod("a", "10.244.1.2"))
    world.see(veth(3, "10.244.1.2"))
    assert links(world.see(veth(2, "10.244.1.2"), veth(3, "10.244.1.2"))) == {"a": "veth3"}


def test_a_link_that_is_replaced_is_the_pods_again_unless_another_pod_waits() -> None:
    world = World().tell(pod("a", "10.244.1.2"))
    world.see(veth(2, "10.244.1.2"))
    assert links(world.see(veth(3, "10.244.1.2"))) == {"a": "veth3"}
    world.tell(pod("b", phase="Pending"))
    view = world.see(veth(4, "10.244.1.2"))
    assert view.missing == {
        A: "veth4 has 10.244.1.2 now, and may be the link of default/b, which waits for its address"
    }
    assert links(world.tell(pod("b", "10.244.1.9")).see(veth(4, "10.244.1.2"))) == {"a": "veth4"}


def test_an_address_goes_from_one_pod_to_another() -> None:
    world = World().tell(pod("a", "10.244.1.2"))
    world.see(veth(2, "10.244.1.2"))
    assert not world.see().residents
    assert not world.tell(pod("b")).see(veth(3, "10.244.1.2")).residents
    assert not world.tell(pod("b", "10.244.1.2")).see(veth(3, "10.244.1.2")).residents, "both claim it"
    assert links(world.gone(A).see(veth(3, "10.244.1.2"))) == {"b": "veth3"}


def test_a_pod_made_anew_with_the_same_name_is_another_one() -> None:
    world = World().tell(pod("a", "10.244.1.2"))
    world.see(veth(2, "10.244.1.2"))
    view = world.tell(pod("a", "10.244.1.2", uid="second")).see(veth(2, "10.244.1.2"))
    assert view.residents[A].endpoint.container == "second"


def test_what_is_news() -> None:
    residents = World().residents
    assert residents.set_pod(A, pod("a"))
    assert not residents.set_pod(A, pod("a"))
    assert residents.set_pod(A, pod("a", "10.244.1.2"))
    assert not residents.set_pod(B, pod("b", "10.244.1.3", node="n2"))
    assert residents.set_pod(A, None)
    assert not residents.set_pod(A, None)


def test_the_devices_of_pods_and_nobody_elses() -> None:
    bridges = {**BRIDGES, 8: Bridge("docker0", ("172.17.0.1/16",)), 7: Bridge("br0", ("10.244.1.250/24",), ("eth1",))}
    world = World("10.244.1.0/24").tell(pod("a", "10.5.0.2"))
    view = world.see(
        veth(2, "10.5.0.2", master=0),
        veth(3, "10.244.1.7", master=0),
        veth(4, "192.168.0.1", master=0),
        veth(5, "172.17.0.2", master=8),
        bridges=bridges,
    )
    assert view.devices == {CNI0, 2, 3}, "a pod's, the bridge and the link of whoever is in the pods' network"
    assert view.own == {"10.244.1.1", "fe80::1"}


def test_a_bridge_with_other_machines_behind_it_is_left_alone() -> None:
    bridges = {CNI0: Bridge("br0", ("10.244.1.1/24",), ("eth0",))}
    view = World("10.244.1.0/24").tell(pod("a", "10.244.1.2")).see(veth(2, "10.244.1.2"), bridges=bridges)
    assert view.missing == {A: "its link veth2 is a port of br0, and so is eth0"}
    assert not view.devices
    view = World().tell(pod("a", "10.244.1.2")).see(veth(2, "10.244.1.2"), bridges={})
    assert view.missing == {A: "its link veth2 is a port of something that is no bridge"}


def test_a_port_that_the_bridges_table_does_not_guard_is_nobodys() -> None:
    one, two, own = veth(2, "10.244.1.2"), veth(3, "10.244.1.3"), veth(4, "10.5.0.2", master=0)
    pods = (pod("a", "10.244.1.2"), pod("b", "10.244.1.3"), pod("c", "10.5.0.2"))
    view = World().tell(*pods).see(one, two, own)
    assert links(guarded(view, None)) == {"c": "veth4"}
    held = guarded(view, BridgeRules(frozenset({Port(2, one.mac, ("10.244.1.2",))})))
    assert links(held) == {"a": "veth2", "c": "veth4"}
    assert held.missing.keys() == {B}
    assert held.devices == view.devices, "closed, and not forgotten"


def test_the_nodes_own_word_about_networks_unless_somebody_sets_them() -> None:
    told = World().residents
    told.set_networks(["10.1.0.0/24", "nonsense"])
    assert told.networks == ("10.1.0.0/24",)
    configured = World("10.2.0.0/24").residents
    configured.set_networks(["10.1.0.0/24"])
    assert configured.networks == ("10.2.0.0/24",)
