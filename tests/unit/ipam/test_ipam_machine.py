"""Several replicas, a bus that conflicts, and everything that can fail in between: no address twice, none lost.

Requests are carried by clerks. A clerk does what the service does for one batch, in single steps that hypothesis
interleaves: decide, commit, confirm. Any replica can be killed between two of them, and its clients ask again, of
another replica, with what they asked before; or a client gives up and releases. Feeds lag by any number of facts.

A client may only conclude what it is told, so its expectations are a model of its own: what a handle was answered is
what it has until its release is answered. Beside that, whoever did not name an address is not given one that the
replica knew to be reserved, nor one that somebody gave back less than the shortest cool-down ago, through whatever
became of its block meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)

from bus_schemas.ids import HandleId
from bus_schemas.ipam import Assigned, AssignRequest, Busy, PoolExhausted, Refused, Released, ReleaseRequest
from bus_schemas.reserved import Reserved
from bus_schemas.subjects import BLOCK, HANDLE, Fact
from services.ipam.cidr import parse, parse_address
from services.ipam.core import Decision, Reply, Request
from services.ipam.limits import Limits
from tests.support.ipam import (
    START,
    Replica,
    Store,
    ask,
    check_store,
    configuration,
    give_back,
    node,
    pool,
    ranged,
    reservation,
    without,
)

NODES = [node(f"n{i}") for i in range(3)]
RANGED = [ranged(f"n{i}", "10.2.0.0/29") for i in range(2)]
"""A range that goes from one node to the other."""
RESERVATIONS = [reservation("r", "10.0.0.4/30", "10.1.0.1"), reservation("s", "10.0.0.9", "fd00::2/127")]
SHORTEST_REST_S = 10
POOLS = [
    pool("a", "10.0.0.0/28", block_size=30),
    pool("b", "10.1.0.0/30", block_size=32),
    pool("six", "fd00::/125", block_size=126),
]
HANDLES = st.sampled_from([f"h{i}" for i in range(8)])
ANY_NODE = st.sampled_from(NODES + RANGED)
REPLICA = st.integers(0, 2)
CALLS = ["any", "any", "any", "release", "release", "own range", "take over", "exact"]
WHOLE, HALVES = POOLS[0], [pool(f"split-a-{i}", f"10.0.0.{8 * i}/29", block_size=30) for i in range(2)]
CHANGES = [
    *([fact] for fact in (*NODES, *RANGED, *POOLS, *RESERVATIONS)),
    *([without(fact)] for fact in (*NODES, *POOLS, *RESERVATIONS)),
    [pool("a", "10.0.0.0/28", block_size=30, disabled=True)],
    [without(WHOLE), *HALVES],
    [*map(without, HALVES), WHOLE],
]
"""What people do to resources, together."""


def released_by(request: Request) -> HandleId | None:
    """The handle that may lose something by a request."""
    return request.handle if isinstance(request, ReleaseRequest) else request.takes_over


@dataclass
class Clerk:
    """One batch of requests on its way through one replica."""

    replica: int
    requests: list[Request]
    life: int
    """The replica's life that the clerk belongs to: it dies with it."""
    replies: list[Reply | None] = field(default_factory=list)
    decision: Decision | None = None
    decided: float = 0.0
    reserved: Reserved = field(default_factory=Reserved)
    """What the replica knew to be reserved when it decided."""
    committed: bool = False


class Allocator(RuleBasedStateMachine):
    clerks: Bundle[Clerk] = Bundle("clerks")

    @initialize(strict=st.booleans(), limit=st.sampled_from([0, 2, 20]), rests=st.booleans())
    def begin(self, strict: bool, limit: int, rests: bool) -> None:
        self.store = Store()
        for fact in (*NODES, *POOLS):
            self.store.put(fact)
        limits = Limits(strict, limit, reclaim_after_s=60, cooldown_s=SHORTEST_REST_S if rests else 0)
        self.rests = rests
        self.replicas = [Replica(self.store, limits) for _ in range(3)]
        self.lives = [0, 0, 0]
        self.now = START
        self.told: dict[HandleId, tuple[str, ...]] = {}
        """What clients were answered, and may rely on."""
        self.pending: dict[HandleId, int] = {}
        """Releases that may take effect at any time: until all are answered or dead, the handle promises nothing."""
        self.released: dict[str, float] = {}
        """When an address came back last, by the clock of who decided it."""

    # --- clients

    @rule(
        target=clerks,
        replica=REPLICA,
        on=ANY_NODE,
        wanted=st.lists(st.tuples(HANDLES, st.sampled_from([(), (4,), (6,), (4, 6)])), min_size=1, max_size=6),
    )
    def assign(self, replica: int, on: Fact, wanted: list[tuple[str, tuple[int, ...]]]) -> Clerk:
        name = on.key[1]
        requests: list[Request] = [ask(handle, name, families=families) for handle, families in wanted]
        return Clerk(replica, requests, self.lives[replica])

    @rule(target=clerks, replica=REPLICA, on=ANY_NODE, handle=HANDLES, last=st.integers(0, 15))
    def assign_exactly(self, replica: int, on: Fact, handle: str, last: int) -> Clerk:
        name = on.key[1]
        return Clerk(replica, [ask(handle, name, addresses=(f"10.0.0.{last}",))], self.lives[replica])

    @rule(target=clerks, replica=REPLICA, on=ANY_NODE, handle=HANDLES, most=st.none() | st.integers(1, 3))
    def assign_of_its_own_range(self, replica: int, on: Fact, handle: str, most: int | None) -> Clerk:
        request = ask(handle, on.key[1], from_pod_cidr=True, max_blocks_per_node=most)
        return Clerk(replica, [request], self.lives[replica])

    @rule(target=clerks, replica=REPLICA, on=ANY_NODE, handle=HANDLES, warm=HANDLES, named=st.booleans())
    def take_over(self, replica: int, on: Fact, handle: str, warm: str, named: bool) -> Clerk:
        """The warm handle promises nothing from now on."""
        addresses = self.told.get(HandleId(warm), ()) if named else ()
        request = ask(handle, on.key[1], takes_over=HandleId(warm), addresses=addresses)
        return self._releasing(Clerk(replica, [request], self.lives[replica]))

    @rule(target=clerks, replica=REPLICA, handles=st.lists(HANDLES, min_size=1, max_size=4))
    def release(self, replica: int, handles: list[str]) -> Clerk:
        requests: list[Request] = [give_back(handle) for handle in handles]
        return self._releasing(Clerk(replica, requests, self.lives[replica]))

    @rule(target=clerks, replica=REPLICA, last=st.integers(0, 15))
    def release_address(self, replica: int, last: int) -> Clerk:
        """Whose it is shows only when it is done."""
        return Clerk(replica, [ReleaseRequest(address=f"10.0.0.{last}")], self.lives[replica])

    @rule(target=clerks, clerk=consumes(clerks), replica=REPLICA)
    def give_up_and_ask_again(self, clerk: Clerk, replica: int) -> Clerk | MultipleResults[Clerk]:
        """The reply was lost, or its replica died: the same requests go to whoever listens."""
        open_ = [r for i, r in enumerate(clerk.requests) if not clerk.replies or clerk.replies[i] is None]
        self._answered(clerk)
        if not open_:
            return multiple()
        return self._releasing(Clerk(replica, open_, self.lives[replica]))

    def _releasing(self, clerk: Clerk) -> Clerk:
        for handle in filter(None, map(released_by, clerk.requests)):
            self.pending[handle] = self.pending.get(handle, 0) + 1
            self.told.pop(handle, None)
        return clerk

    def _answered(self, clerk: Clerk) -> None:
        """Its releases can no longer take effect."""
        for handle in filter(None, map(released_by, clerk.requests)):
            self.pending[handle] -= 1
        clerk.requests = []

    # --- the service, step by step

    @rule(clerk=clerks)
    def decide(self, clerk: Clerk) -> None:
        if self._dead(clerk) or clerk.decision is not None:
            return
        clerk.replies = clerk.replies or [None] * len(clerk.requests)
        open_ = self._open(clerk)
        if open_:
            core = self.replicas[clerk.replica].core
            clerk.decision = core.decide([clerk.requests[i] for i in open_], self.now)
            clerk.decided, clerk.reserved = self.now, core.desired.reserved
            clerk.committed = False

    @rule(clerk=clerks)
    def commit(self, clerk: Clerk) -> None:
        if self._dead(clerk) or clerk.decision is None or clerk.committed:
            return
        before = self._held()
        if self.replicas[clerk.replica].commit(clerk.decision):
            clerk.committed = True
            self._check_what_was_taken(clerk, before)
        else:
            clerk.decision = None

    @rule(clerk=clerks)
    def confirm(self, clerk: Clerk) -> None:
        if self._dead(clerk) or clerk.decision is None or not clerk.committed:
            return
        replica = self.replicas[clerk.replica]
        replies = replica.confirmed(clerk.decision)
        for i, reply in zip(self._open(clerk), replies, strict=True):
            clerk.replies[i] = reply
            if reply is not None:
                self._hear(clerk.requests[i], reply)
        replica.look_again(clerk.decision)
        clerk.decision = None

    @rule(clerk=clerks)
    def through(self, clerk: Clerk) -> None:
        """All of the steps undisturbed, until everything is answered."""
        for _ in range(12):
            self.decide(clerk)
            self.commit(clerk)
            self.confirm(clerk)

    @rule(replica=REPLICA, calls=st.lists(st.tuples(st.sampled_from(CALLS), ANY_NODE, HANDLES, HANDLES), max_size=8))
    def undisturbed(self, replica: int, calls: list[tuple[str, Fact, str, str]]) -> None:
        """What happens most of the time: nobody comes between."""
        self.replicas[replica].catch_up()
        for what, on, first, last in calls:
            clerk = Clerk(
                replica, self._requests(what, on.key[1], HandleId(first), HandleId(last)), self.lives[replica]
            )
            self.through(self._releasing(clerk))
            if clerk.replies and None not in clerk.replies:
                self._answered(clerk)

    def _requests(self, what: str, on: str, first: HandleId, last: HandleId) -> list[Request]:
        match what:
            case "any":
                return [ask(first, on), ask(last, on, families=(4,))]
            case "own range":
                return [ask(first, on, from_pod_cidr=True)]
            case "exact":
                return [ask(first, on, addresses=(f"10.0.0.{len(self.store.log) % 16}",))]
            case "take over":
                held = self.store.get(HANDLE, (last,)).value
                on = on if held is None else held.node
                return [ask(f"{first} anew", on, takes_over=last, addresses=self.told.get(last, ()))]
        return [give_back(first), give_back(last), give_back(f"{first} anew")]

    @rule(replica=REPLICA, facts=st.integers(1, 8) | st.none())
    def hear(self, replica: int, facts: int | None) -> None:
        self.replicas[replica].catch_up(facts)

    @rule(replica=REPLICA)
    def repair(self, replica: int) -> None:
        self.replicas[replica].commit(self.replicas[replica].core.repairs(self.now))

    @rule(replica=REPLICA)
    def kill(self, replica: int) -> None:
        self.lives[replica] += 1
        self.replicas[replica].restart()

    @rule(clerk=clerks)
    def written_but_nobody_knows(self, clerk: Clerk) -> None:
        """The batch is stored, and the connection is gone before the word of it."""
        if self._dead(clerk) or clerk.decision is None or clerk.committed:
            return
        before = self._held()
        replica = self.replicas[clerk.replica]
        writes = clerk.decision.writes
        if all(self.store.get(w.family, w.key).sequence == w.expected for w in writes):
            self.store.batch(writes)
            self._check_what_was_taken(clerk, before)
        for write in writes:
            replica.core.learned(self.store.get(write.family, write.key))
        clerk.decision = None

    # --- the world

    @rule(seconds=st.sampled_from([1, 11, 61]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds

    @rule(facts=st.sampled_from(CHANGES), back=st.booleans())
    def change(self, facts: list[Fact], back: bool) -> None:
        """`back`: and soon everything is there again."""
        for fact in (*facts, *(NODES + POOLS if back else ())):
            self.store.put(fact)

    @rule(
        strict=st.none() | st.booleans(),
        claim=st.none() | st.booleans(),
        most=st.none() | st.integers(0, 3),
        rest=st.sampled_from([None, 1, 6]),
    )
    def configure(self, strict: bool | None, claim: bool | None, most: int | None, rest: int | None) -> None:
        cooldown = rest * SHORTEST_REST_S if rest is not None and self.rests else None
        self.store.put(
            configuration(
                strict_affinity=strict,
                auto_allocate_blocks=claim,
                max_blocks_per_host=most,
                ip_cooldown_seconds=cooldown,
            )
        )

    # --- what must be so

    @invariant()
    def no_address_twice_and_none_lost(self) -> None:
        if hasattr(self, "store"):
            check_store(self.store)

    @invariant()
    def nobody_loses_what_he_was_told(self) -> None:
        if not hasattr(self, "store"):
            return
        held = self._held()
        for handle, addresses in self.told.items():
            assert held.get(handle) == addresses, (handle, addresses, held.get(handle))

    def teardown(self) -> None:
        """At last everybody hears everything, and the claims come to rest in the same state for all."""
        if not hasattr(self, "store"):
            return
        self._come_to_rest()
        self.nobody_loses_what_he_was_told()
        for handle in list(self._held()):
            [reply] = self.replicas[0].answer(give_back(handle), now=self.now)
            assert isinstance(reply, Released)
            assert reply.addresses
            self.replicas[0].catch_up()
        assert check_store(self.store) == {}
        self.now += 100
        self._come_to_rest()
        for block in self.store.values(BLOCK):
            assert block.node is not None, f"{block.cidr} is nobody's and empty, and still there"

    def _come_to_rest(self) -> None:
        for _ in range(60):
            for replica in self.replicas:
                replica.catch_up()
            busy = [self._repair_once(replica) for replica in self.replicas]
            if True not in busy:
                break
        else:
            raise AssertionError("the replicas never agree")
        self.no_address_twice_and_none_lost()
        desired = self.replicas[0].core.desired
        for block in self.store.values(BLOCK):
            holder = desired.pool_of_block(parse(block.cidr), block)
            assert holder is None or holder.name == block.pool, f"{block.cidr} says that it is of {block.pool}"

    def _repair_once(self, replica: Replica) -> bool:
        """Whether there was anything to do, done or not."""
        decision = replica.core.repairs(self.now)
        replica.commit(decision)
        return bool(decision.writes)

    # --- bookkeeping

    def _dead(self, clerk: Clerk) -> bool:
        return clerk.life != self.lives[clerk.replica]

    def _open(self, clerk: Clerk) -> list[int]:
        return [i for i, reply in enumerate(clerk.replies) if reply is None]

    def _held(self) -> dict[HandleId, tuple[str, ...]]:
        return {handle.handle: handle.addresses for handle in self.store.values(HANDLE)}

    def _check_what_was_taken(self, clerk: Clerk, before: dict[HandleId, tuple[str, ...]]) -> None:
        """A commit may take from a handle only what a release in it names. By address it may be anybody's. It may give
        by chance only what is not reserved and has rested."""
        after = self._held()
        were, are = ({a for held in state.values() for a in held} for state in (before, after))
        named = {text for r in clerk.requests if isinstance(r, AssignRequest) for text in r.addresses}
        for text in are - were - named:
            assert tuple(parse_address(text)) not in clerk.reserved, f"{text} is reserved"
            rested = clerk.decided - self.released.get(text, -1e9)
            assert not self.rests or rested >= SHORTEST_REST_S, f"{text} was released {rested} s before"
        self.released.update(dict.fromkeys(were - are, clerk.decided))
        released = {released_by(r) for r in clerk.requests if isinstance(r, ReleaseRequest) or r.takes_over}
        for handle, addresses in before.items():
            if after.get(handle) == addresses:
                continue
            assert handle in released or None in released, f"{handle} lost {addresses} and nobody released it"
            self.told.pop(handle, None)

    def _hear(self, request: Request, reply: Reply) -> None:
        match request, reply:
            case AssignRequest(), Assigned():
                if not self.pending.get(request.handle):
                    known = self.told.setdefault(request.handle, reply.addresses)
                    assert known == reply.addresses, "a handle's answer changed"
            case AssignRequest(), PoolExhausted() | Refused() | Busy():
                held = self.told.get(request.handle)
                if held is not None and isinstance(reply, PoolExhausted):
                    raise AssertionError(f"{request.handle} holds {held} and is told that there is none")
            case ReleaseRequest(), Released() | Refused():
                pass
            case _:
                raise AssertionError((request, reply))


Allocator.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestAllocator = Allocator.TestCase
