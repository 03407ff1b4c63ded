"""What Services of type LoadBalancer want, row by row, and the steps until they have it."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.ids import HandleId
from bus_schemas.ipam import LOAD_BALANCER, Assigned, Handle, PoolExhausted, ReleaseRequest, load_balancer_handle
from bus_schemas.resources import Metadata, Service
from bus_schemas.resources.services import ServiceSpec
from bus_schemas.subjects import Fact
from services.ipam.limits import Limits
from services.ipam.wishes import SERVICE, Give, Keep, Leave, Services, Step, TakeBack, Unfit, next_step, wish_of
from tests.support.ipam import START, ask, cluster, desired, node, owners, pool, without

LB = {"allowed_uses": ("LoadBalancer",), "block_size": 30}
FOUR, EDGE = pool("four", "192.0.2.0/28", **LB), pool("edge", "198.51.100.0/30", **LB)
SIX = pool("six", "2001:db8::/122", allowed_uses=("LoadBalancer",), block_size=126)
PODS = pool("pods", "10.0.0.0/24")
KEY = ("web", "shop")
HANDLE = load_balancer_handle(*KEY)


def service(annotations: dict[str, str] | None = None, **spec: Any) -> Service:
    meta = Metadata(name="shop", namespace="web", annotations=annotations or {})
    return Service(metadata=meta, spec=ServiceSpec(**{"type": "LoadBalancer", **spec}))


def says(**annotations: str) -> dict[str, str]:
    return {f"projectcalico.org/{name}": text for name, text in annotations.items()}


@pytest.mark.parametrize(
    "other",
    [service(type="ClusterIP"), service(type="NodePort"), service(load_balancer_class="metallb.io/metallb")],
    ids=["ClusterIP", "NodePort", "another class"],
)
def test_a_service_that_is_none_of_ours(other: Service) -> None:
    assert wish_of(other) is None
    _, [ipam] = cluster(FOUR)
    assert next_step(other, None, ipam.core.desired) == Leave()
    held = Handle(handle=HANDLE, node=LOAD_BALANCER, addresses=("192.0.2.1",), sequences=(1,))
    assert next_step(other, held, ipam.core.desired) == TakeBack(HANDLE)


@pytest.mark.parametrize(
    ("wanting", "families", "addresses", "pools"),
    [
        (service(), (), (), ()),
        (service(load_balancer_class="calico"), (), (), ()),
        (service(ip_families=("IPv6", "IPv4")), (6, 4), (), ()),
        (service(says(loadBalancerIPs='["192.0.2.7", "2001:db8::7"]')), (), ("192.0.2.7", "2001:db8::7"), ()),
        (service(load_balancer_ip="192.0.2.7"), (), ("192.0.2.7",), ()),
        (service(says(loadBalancerIPs='["192.0.2.8"]'), load_balancer_ip="192.0.2.7"), (), ("192.0.2.8",), ()),
        (service(says(ipv4pools='["edge"]', ipv6pools='["six"]')), (), (), ("edge", "six")),
        (service(says(loadBalancerIPs="[]")), (), (), ()),
    ],
)
def test_what_it_asks_for(
    wanting: Service, families: tuple[int, ...], addresses: tuple[str, ...], pools: tuple[str, ...]
) -> None:
    wish = wish_of(wanting)
    assert wish is not None
    assert (wish.node, wish.handle, wish.use, wish.namespace, wish.pod) == (
        LOAD_BALANCER,
        HANDLE,
        "loadbalancer",
        "web",
        "shop",
    )
    assert (wish.families, wish.addresses, wish.pools) == (families, addresses, pools)


@pytest.mark.parametrize(
    ("wanting", "reason"),
    [
        (service(says(loadBalancerIPs='["192.0.2.1", "192.0.2.2"]')), "at most one address of each family"),
        (service(says(loadBalancerIPs="192.0.2.1")), "must be a JSON list"),
        (service(says(loadBalancerIPs='["192.0.2.300"]')), "192.0.2.300"),
        (service(says(ipv4pools='{"a": 1}')), "must be a JSON list"),
        (service(says(loadBalancerIPs='["2001:db8::7"]'), ip_families=("IPv4",)), "is of ipFamilies IPv4"),
        (service(ip_families=("IPv5",)), "neither IPv4 nor IPv6"),
    ],
)
def test_what_cannot_be_is_said(wanting: Service, reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        wish_of(wanting)
    _, [ipam] = cluster(FOUR)
    step = next_step(wanting, None, ipam.core.desired)
    assert isinstance(step, Leave)
    assert reason in step.reason


class Clerk:
    """Carries one Service's steps to a replica, as the duty does."""

    def __init__(self, *facts: Any) -> None:
        self.store, [self.ipam] = cluster(*facts)
        self.services = Services(grace_s=900)

    def settle(self, now: float = START) -> Step | str:
        """The last step, or why nothing was given."""
        for _ in range(4):
            held = self.ipam.core.ledger.handles.get(HANDLE)
            match self.services.step(KEY, held, self.ipam.core.desired, now):
                case Give(request=request):
                    [reply] = self.ipam.answer(request, now=now)
                    if not isinstance(reply, Assigned):
                        assert not isinstance(reply, ReleaseRequest)
                        return getattr(reply, "reason", "")
                case TakeBack(handle=handle):
                    self.ipam.answer(ReleaseRequest(handle=handle), now=now)
                case step:
                    return step
        raise AssertionError("it never comes to rest")

    def tell(self, wanting: Service) -> None:
        self.services.apply(desired(wanting))


def test_a_service_has_addresses_of_pools_for_load_balancers_alone() -> None:
    clerk = Clerk(FOUR, SIX, PODS, node("n1"))
    clerk.tell(service())
    step = clerk.settle()
    assert isinstance(step, Keep)
    assert [a.split(":")[0].rpartition(".")[0] for a in step.addresses] == ["192.0.2", ""]
    assert set(owners(clerk.store).values()) == {LOAD_BALANCER}
    assert clerk.settle() == step
    [pod] = clerk.ipam.answer(ask("pod"))
    assert isinstance(pod, Assigned)
    assert pod.addresses[0].startswith("10.0.0.")


def test_no_pool_for_load_balancers() -> None:
    clerk = Clerk(PODS, node("n1"))
    clerk.tell(service())
    told = str(clerk.settle())
    assert "for Services of type LoadBalancer: " in told
    assert "has no LoadBalancer in allowedUses" in told


def test_what_it_asks_for_changes() -> None:
    clerk = Clerk(FOUR, EDGE, SIX)
    clerk.tell(service(ip_families=("IPv4",)))
    first = clerk.settle()
    assert isinstance(first, Keep)
    clerk.tell(service(says(loadBalancerIPs='["192.0.2.9"]')))
    assert clerk.settle() == Keep(("192.0.2.9",))
    clerk.tell(service(says(ipv4pools='["edge"]')))
    edge = clerk.settle()
    assert isinstance(edge, Keep)
    assert edge.addresses[0].startswith("198.51.100.")
    clerk.tell(service(ip_families=("IPv4", "IPv6")))
    both = clerk.settle()
    assert isinstance(both, Keep)
    assert len(both.addresses) == 2
    clerk.tell(service(type="ClusterIP"))
    assert clerk.settle() == Leave()
    assert clerk.ipam.core.ledger.load_balanced == set()


def test_an_address_of_somebody_else_is_refused() -> None:
    clerk = Clerk(FOUR)
    other = ask("other", LOAD_BALANCER, use="loadbalancer", addresses=("192.0.2.9",))
    assert isinstance(clerk.ipam.answer(other)[0], Assigned)
    clerk.tell(service(load_balancer_ip="192.0.2.9"))
    assert "in use by handle other" in str(clerk.settle())


def test_a_deleted_service_gives_back_at_once_and_one_that_nobody_speaks_of_after_a_while() -> None:
    clerk = Clerk(FOUR)
    clerk.tell(service())
    kept = clerk.settle()
    clerk.services.apply(without(desired(service())))
    assert clerk.settle() == Leave()
    clerk.tell(service())
    kept = clerk.settle()
    clerk.services = Services(grace_s=900)
    assert clerk.settle(START) == kept
    assert clerk.settle(START + 899) == kept
    assert clerk.settle(START + 900) == Leave()


def test_services_that_are_gone_and_hold_nothing_are_forgotten() -> None:
    services = Services(grace_s=900)
    services.apply(Fact(SERVICE, ("web", "internal"), None, 1))
    services.apply(Fact(SERVICE, ("web", "shop"), None, 2))
    services.forget_all_but({("web", "shop")})
    assert services.gone == {("web", "shop")}


def test_limits_are_for_nodes() -> None:
    """However many blocks the load balancers need."""
    _, [ipam] = cluster(FOUR, limits=Limits(max_blocks_per_node=1, auto_allocate_blocks=False))
    replies = ipam.answer(*(ask(f"lb-{i}", LOAD_BALANCER, use="loadbalancer") for i in range(17)))
    assert [type(reply) for reply in replies] == [Assigned] * 16 + [PoolExhausted]
    assert ipam.core.ledger.load_balanced == {HandleId(f"lb-{i}") for i in range(16)}
