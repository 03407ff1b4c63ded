"""What is made of a batch of which the bus holds only the first messages: it is put right, nothing is given twice."""

from __future__ import annotations

from typing import Any

import pytest

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, Released
from bus_schemas.subjects import BLOCK, HANDLE
from chassis.health import Health
from services.ipam.collector import Collector
from services.ipam.core import Reply, Request
from services.ipam.keeper import Keeper
from services.ipam.limits import Limits
from services.ipam.settings import Settings
from tests.support.ipam import START, affinities, ask, check_store, give_back, owners, pool
from tests.support.ipam_lives import LivingReplica, ModelAgent, ModelBus, Records, Running

LATER = START + 10
OPTIONS = Settings(leak_grace_s=900.0, recovery_settle_s=0.0, ip_cooldown_s=0.0)


class Halves:
    """One replica that restarts after every half; n1's agent lives."""

    def __init__(self) -> None:
        self.store = Records()
        self.store.put(pool("a", "10.0.0.0/28", block_size=30))
        self.agent = ModelAgent(NodeName("n1"), created=START)
        self.store.put(self.agent.resource())
        self.replica = LivingReplica(self.store, Limits())
        self.bus = ModelBus(self.store)
        self.bus.alive = {"n1"}
        self.now = LATER
        any_bus: Any = self.bus
        self.run(Keeper(any_bus, self.replica, Health(), OPTIONS).tend(self.replica.words))
        self.begin()

    def begin(self) -> None:
        """The replica starts, again."""
        self.replica.restart()
        bus: Any = self.bus
        self.collector = Collector(bus, self.replica, OPTIONS, now=lambda: self.now)

    def run(self, coroutine: Any) -> Any:
        one = Running(0, 0, coroutine)
        while not one.done:
            one.step()
        return one.result

    def settle(self, request: Request) -> Reply:
        reply: Reply = self.run(self.replica.settle(request, self.now))
        return reply

    def half(self, request: Request, kept: int, *, rounds: int = 0) -> None:
        """After `rounds` whole decisions the server dies in the next: it holds `kept` of its messages."""
        for _ in range(rounds):
            assert self.run(self.replica.commit(self.replica.core.decide([request], self.now)))
        writes = self.replica.core.decide([request], self.now).writes
        assert 0 < kept < len(writes), [write.family.name for write in writes]
        self.store.batch(writes[:kept])
        self.begin()

    def mend(self) -> None:
        """What a replica does by itself, and as many looks as it takes."""
        for _ in range(2):
            self.run(self.replica.repair(self.now))
            self.replica.hear()
            self.agent.speak(self.store)
            self.replica.hear()
            self.run(self.collector.look(self.replica.words))

    def collect(self) -> None:
        for _ in range(3):
            self.now += 1000.0
            self.mend()


@pytest.fixture
def halves() -> Halves:
    return Halves()


def test_a_block_without_the_handle(halves: Halves) -> None:
    halves.settle(ask("first", families=(4,)))
    halves.half(ask("web", families=(4,)), 1)
    with pytest.raises(AssertionError, match="do not agree"):
        check_store(halves.store)
    halves.mend()
    given = check_store(halves.store)
    assert sorted(given.values()) == ["first", "web"]
    halves.collect()
    assert check_store(halves.store) == {}, "nobody was told of it"


def test_a_handle_without_the_block(halves: Halves) -> None:
    halves.settle(ask("web", families=(4,)))
    halves.half(give_back("web"), 1)
    assert halves.store.get(HANDLE, ("web",)).value is not None
    halves.mend()
    assert check_store(halves.store) == {}
    assert halves.store.get(HANDLE, ("web",)).value is None
    assert isinstance(halves.settle(give_back("web")), Released)


def test_a_claim_of_which_a_part_is_there(halves: Halves) -> None:
    """A new block: the claim, then block, affinity and handle at once."""
    request = ask("web", families=(4,))
    halves.half(request, 1, rounds=1)
    halves.mend()
    check_store(halves.store)
    [(cidr, node)] = owners(halves.store).items()
    assert (node, affinities(halves.store)) == ("n1", {("n1", cidr): "confirmed"})
    reply = halves.settle(request)
    assert isinstance(reply, Assigned)
    assert list(check_store(halves.store)) == list(reply.addresses)


def test_who_asks_again_before_it_is_mended_is_given_all_of_it_until_he_gives_it_back(halves: Halves) -> None:
    """The handle is not there, so it is given an address like any new one; the block has two under its name then."""
    halves.settle(ask("first", families=(4,)))
    request = ask("web", families=(4,))
    halves.half(request, 1)
    reply = halves.settle(request)
    assert isinstance(reply, Assigned)
    halves.agent.pods[HandleId("web")] = reply.addresses
    halves.mend()
    given = check_store(halves.store)
    assert sorted(given.values()) in (["first", "web"], ["first", "web", "web"])
    assert given[reply.addresses[0]] == "web"
    del halves.agent.pods[HandleId("web")]
    assert isinstance(halves.settle(give_back("web")), Released)
    assert list(check_store(halves.store).values()) == ["first"]


def test_half_of_a_lost_release_takes_no_pod_its_address(halves: Halves) -> None:
    """Two blocks change, and one of them did not: what the handle still has in the other stays its own."""
    halves.store.put(pool("six", "fd00::/124", block_size=126))
    halves.replica.hear()
    reply = halves.settle(ask("web"))
    assert isinstance(reply, Assigned)
    halves.half(give_back("web"), 1)
    halves.mend()
    left = check_store(halves.store)
    assert len(left) == 1
    assert set(left) < set(reply.addresses)
    assert len(halves.store.values(BLOCK)) == 2
