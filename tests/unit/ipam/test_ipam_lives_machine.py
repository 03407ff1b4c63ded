"""Wipes, recoveries and collections, with crashes between any two operations on the bus: no address is two pods' own at
any time, and none is lost for good.

Requests, keepers and collectors are coroutines that hypothesis advances one bus operation at a time, any number of them
side by side, on replicas whose feeds lag: the lease that keeps keepers and collectors single is not there, nothing
rests on it. Agents keep the promises of the real one (`tests/support/ipam_lives`): they may die, be slow to speak, give
up, forget to give back. In the end everybody speaks, time passes, and the books must agree.
"""

from __future__ import annotations

from itertools import count
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Handle, ReleaseRequest
from bus_schemas.subjects import BLOCK, CANDIDATE, ENDPOINT, EPOCH, HANDLE, HOLDING
from chassis.health import Health
from services.ipam.collector import Collector
from services.ipam.keeper import Keeper
from services.ipam.limits import Limits
from services.ipam.settings import Settings
from tests.support.ipam import START, ask, check_store, pool, without
from tests.support.ipam_lives import Ask, LivingReplica, ModelAgent, ModelBus, Records, Running

NODES = [f"n{i}" for i in range(3)]
POOLS = [pool("a", "10.0.0.0/29", block_size=31), pool("six", "fd00::/126", block_size=127)]
NODE = st.sampled_from(NODES)
REPLICA = st.integers(0, 1)
PICK = st.integers(0, 7)
GRACE_S = 900.0
LONG_S = 1000.0
OPTIONS = Settings(leak_grace_s=GRACE_S, recovery_settle_s=0.0, ip_cooldown_s=0.0)


class Lives(RuleBasedStateMachine):
    @initialize(strict=st.booleans())
    def begin(self, strict: bool) -> None:
        self.store = Records()
        self.now = START
        self.names = count()
        self.agents: dict[str, ModelAgent] = {}
        for fact in POOLS:
            self.store.put(fact)
        limits = Limits(strict_affinity=strict, reclaim_after_s=60)
        self.replicas = [LivingReplica(self.store, limits) for _ in range(2)]
        self.lives = [0, 0]
        self.buses = [ModelBus(self.store) for _ in range(2)]
        self.running: list[Running] = []
        self.collectors: dict[int, Collector] = {}
        """By replica: what they saw before counts."""
        self.tried: set[HandleId] = set()
        """Handles of which a release was begun: they are not asked for again, as no container comes again."""
        self._tend(0)
        self._finish_all()
        for name in NODES:
            self.come(name)

    def clock(self) -> float:
        return self.now

    # --- nodes and their agents

    @rule(name=NODE)
    def come(self, name: str) -> None:
        """A new machine."""
        if name not in self.agents:
            self.agents[name] = ModelAgent(NodeName(name), created=self.now)
            self.agents[name].listen(self.store)
            self.store.put(self.agents[name].resource())

    @rule(name=NODE)
    def leave(self, name: str) -> None:
        """The machine is no more, and then its resource."""
        if name in self.agents and self._quiet_until_now(name):
            self.store.put(without(self.agents.pop(name).resource()))

    def _quiet_until_now(self, name: str) -> bool:
        self.agents[name].die()
        return True

    @rule(name=NODE)
    def die(self, name: str) -> None:
        if name in self.agents:
            self.agents[name].die()

    @rule(name=NODE)
    def live_again(self, name: str) -> None:
        if name in self.agents and not self.agents[name].alive:
            self.agents[name].alive = True
            self.agents[name].announce(self.store)

    @rule(name=NODE)
    def speak(self, name: str) -> None:
        if self._alive(name):
            self.agents[name].speak(self.store)

    @rule(name=NODE)
    def announce(self, name: str) -> None:
        if self._alive(name):
            self.agents[name].announce(self.store)

    # --- pods

    @rule(name=NODE, replica=REPLICA, families=st.sampled_from([(4,), (6,), (4, 6)]))
    def ask_for(self, name: str, replica: int, families: tuple[int, ...]) -> None:
        if self._alive(name):
            handle = f"h{next(self.names)}"
            self._ask(self.agents[name].ask(ask(handle, name, families=families, pod=handle)), replica)

    @rule(name=NODE, replica=REPLICA, pick=PICK)
    def ask_again(self, name: str, replica: int, pick: int) -> None:
        """No answer came in time: the same container asks again."""
        if self._alive(name) and self.agents[name].asks:
            agent = self.agents[name]
            old = agent.asks[pick % len(agent.asks)]
            agent.give_up(old)
            if old.request.handle not in self.tried:
                self._ask(agent.ask(old.request), replica)

    def _ask(self, asked: Ask, replica: int) -> None:
        coroutine = self.replicas[replica].settle(asked.request, self.now)
        self.running.append(Running(replica, self.lives[replica], coroutine, asked=asked))

    @rule(name=NODE, pick=PICK)
    def hear_answer(self, name: str, pick: int) -> None:
        if self._alive(name) and self.agents[name].asks:
            agent = self.agents[name]
            agent.hear(agent.asks[pick % len(agent.asks)])

    @rule(name=NODE, pick=PICK)
    def give_up(self, name: str, pick: int) -> None:
        if self._alive(name) and self.agents[name].asks:
            agent = self.agents[name]
            agent.give_up(agent.asks[pick % len(agent.asks)])

    @rule(name=NODE, pick=PICK, leak=st.booleans())
    def delete(self, name: str, pick: int, leak: bool) -> None:
        """DEL; or the pod is gone and nobody gives back what it had."""
        if self._alive(name) and self.agents[name].pods:
            agent = self.agents[name]
            handle = sorted(agent.pods)[pick % len(agent.pods)]
            if leak:
                del agent.pods[handle]
            else:
                agent.delete(handle)

    @rule(name=NODE, replica=REPLICA, pick=PICK)
    def pay(self, name: str, replica: int, pick: int) -> None:
        """A debt: the withdrawal is on the bus before the address is given back."""
        if self._alive(name) and self.agents[name].owed:
            agent = self.agents[name]
            handle = agent.owed[pick % len(agent.owed)]
            agent.announce(self.store)
            self.tried.add(handle)
            request = ReleaseRequest(handle=handle, node=agent.node)
            coroutine = self.replicas[replica].settle(request, self.now)
            self.running.append(Running(replica, self.lives[replica], coroutine, release=(agent, request)))

    # --- the services, step by step

    @rule(pick=PICK, steps=st.integers(1, 4))
    def step(self, pick: int, steps: int) -> None:
        if self.running:
            one = self.running[pick % len(self.running)]
            for _ in range(steps):
                self._step(one)

    @rule(pick=PICK)
    def finish(self, pick: int) -> None:
        if self.running:
            self._finish(self.running[pick % len(self.running)])

    @rule(replica=REPLICA, facts=st.integers(1, 8) | st.none())
    def hear(self, replica: int, facts: int | None) -> None:
        self.replicas[replica].hear(facts)

    @rule(replica=REPLICA, finish=st.booleans())
    def tend(self, replica: int, finish: bool) -> None:
        self._tend(replica)
        if finish:
            self._finish(self.running[-1])

    def _tend(self, replica: int) -> None:
        one = self.replicas[replica]
        keeper = Keeper(self.buses[replica], one, Health(), OPTIONS, now=self.clock)  # type: ignore[arg-type]
        self.running.append(Running(replica, self.lives[replica], keeper.tend(one.words)))

    @rule(replica=REPLICA, finish=st.booleans())
    def look(self, replica: int, finish: bool) -> None:
        one = self.replicas[replica]
        if not one.core.life.closed:
            self.buses[replica].alive = _AliveNow(self)
            if replica not in self.collectors:
                bus: Any = self.buses[replica]
                self.collectors[replica] = Collector(bus, one, OPTIONS, now=self.clock)
            self.running.append(Running(replica, self.lives[replica], self.collectors[replica].look(one.words)))
            if finish:
                self._finish(self.running[-1])

    @rule(replica=REPLICA)
    def repair(self, replica: int) -> None:
        self.running.append(Running(replica, self.lives[replica], self.replicas[replica].repair(self.now)))

    @rule(replica=REPLICA)
    def kill(self, replica: int) -> None:
        self.lives[replica] += 1
        self.collectors.pop(replica, None)
        for one in self.running:
            if one.replica == replica:
                one.kill()
        self.running = [one for one in self.running if one.replica != replica]
        self.replicas[replica].restart()

    # --- much at once, undisturbed: what comes between matters only where there is something

    @rule(name=NODE, replica=REPLICA, families=st.sampled_from([(4,), (6,), (4, 6)]), spoken=st.booleans())
    def add(self, name: str, replica: int, families: tuple[int, ...], spoken: bool) -> None:
        if self._alive(name):
            self.replicas[replica].hear()
            self.ask_for(name, replica, families)
            self._finish(self.running[-1])
            self.agents[name].hear(self.agents[name].asks[-1])
            if spoken:
                self.agents[name].speak(self.store)

    @rule(replica=REPLICA)
    def recover(self, replica: int) -> None:
        for name in self.agents:
            self.speak(name)
        for _ in range(4):
            self.replicas[replica].hear()
            self.tend(replica, True)
        self.replicas[replica].hear()

    @rule(silent=NODE, families=st.sampled_from([(4,), (6,)]))
    def lose_everything_while_one_is_silent(self, silent: str, families: tuple[int, ...]) -> None:
        """No replica remembers, one agent says nothing yet, and the others ask for all that there is."""
        self.recover(0)
        for name in self.agents:
            self.add(name, 0, families, True)
        self.wipe(True)
        for family in (ENDPOINT, HOLDING):
            self.store.lose(family)
        for replica in range(2):
            self.kill(replica)
        others = [name for name in self.agents if name != silent]
        for _ in range(4):
            for name in others:
                self.speak(name)
            for _ in range(2):
                self.replicas[0].hear()
                self.tend(0, True)
        for name in others:
            for _ in range(3):
                self.add(name, 0, families, True)

    @rule(replica=REPLICA)
    def collect(self, replica: int) -> None:
        for _ in range(2):
            self.replicas[replica].hear()
            self.look(replica, True)
            self.pass_long_time()
        self.look(replica, False)

    # --- the world

    @rule(made_anew=st.booleans())
    def wipe(self, made_anew: bool) -> None:
        self.now += 10
        self.store.wipe(self.now, made_anew=made_anew)

    @rule()
    def pass_time(self) -> None:
        self.now += 10

    @precondition(lambda self: hasattr(self, "agents"))
    @rule()
    def pass_long_time(self) -> None:
        """Longer than an ADD may take: what was asked is answered or given up, what is plugged in is announced."""
        for agent in self.agents.values():
            for asked in list(agent.asks):
                agent.hear(asked)
                agent.give_up(asked)
            if agent.alive:
                agent.announce(self.store)
        self.now += LONG_S

    # --- what must be so

    @invariant()
    def no_address_is_two_pods_own(self) -> None:
        seen: dict[str, str] = {}
        for agent in getattr(self, "agents", {}).values():
            for handle, addresses in agent.pods.items():
                for address in addresses:
                    assert address not in seen, f"{address} is {seen[address]}'s and {agent.node}/{handle}'s"
                    seen[address] = f"{agent.node}/{handle}"

    @invariant()
    def the_records_agree(self) -> None:
        if hasattr(self, "store"):
            check_store(self.store)

    def teardown(self) -> None:
        """Everybody lives and speaks, debts are paid, time passes: what is held is what the pods have."""
        if not hasattr(self, "store"):
            return
        for _ in range(12):
            for agent in self.agents.values():
                agent.alive = True
            self._finish_all()
            self.pass_long_time()
            for name in self.agents:
                self.speak(name)
                for _ in range(len(self.agents[name].owed)):
                    if not self.replicas[0].core.life.closed:
                        self.pay(name, 0, 0)
                        self._finish_all()
            for replica in range(2):
                self.hear(replica, None)
            for _ in range(3):
                self.tend(0, True)
                self.hear(0, None)
            self.repair(0)
            self._finish_all()
            self.hear(0, None)
            self.look(0, True)
            self.hear(0, None)
            if self._settled():
                break
        else:
            raise AssertionError(f"it never settles: {self._books()}")
        self.no_address_is_two_pods_own()
        for block in self.store.values(BLOCK):
            assert block.node in self.agents, f"{block.cidr} is {block.node}'s, who is not there"

    def _books(self) -> dict[str, Any]:
        return {
            "given": check_store(self.store),
            "pods": {agent.node: agent.pods for agent in self.agents.values()},
            "epoch": self.store.get(EPOCH, ()).value,
            "candidates": self.store.values(CANDIDATE),
            "owed": {agent.node: agent.owed for agent in self.agents.values()},
            "blocks": {block.cidr: block.node for block in self.store.values(BLOCK)},
        }

    def _settled(self) -> bool:
        pods = {a: handle for agent in self.agents.values() for handle, some in agent.pods.items() for a in some}
        handles: list[Handle] = self.store.values(HANDLE)
        return (
            check_store(self.store) == pods
            and not self.replicas[0].core.life.closed
            and not self.store.values(CANDIDATE)
            and {held.node for held in handles} <= self.agents.keys()
            and all(block.node in self.agents for block in self.store.values(BLOCK))
        )

    # --- bookkeeping

    def _alive(self, name: str) -> bool:
        return name in self.agents and self.agents[name].alive

    def _step(self, one: Running) -> None:
        if not one.done:
            one.step()
        if one.done and one in self.running:
            self.running.remove(one)
            if one.asked is not None:
                one.asked.reply = one.result
            if one.release is not None and one.result is not None:
                agent, request = one.release
                agent.paid(request, one.result)

    def _finish(self, one: Running) -> None:
        for _ in range(300):
            if one.done:
                return
            self._step(one)
        raise AssertionError("it does not come to an end")

    def _finish_all(self) -> None:
        for one in list(self.running):
            self._finish(one)


class _AliveNow(set[str]):
    """Who lives at the moment of asking."""

    def __init__(self, machine: Lives) -> None:
        super().__init__()
        self._machine = machine

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._machine._alive(name)


Lives.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)
TestLives = Lives.TestCase
