"""Interleavings that must not end in one address for two, one by one: what the machine of lives looks for at random."""

from __future__ import annotations

from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, Busy, Held, Holding
from bus_schemas.subjects import EPOCH, HANDLE, HOLDING, Fact
from chassis.health import Health
from services.ipam.keeper import Keeper
from services.ipam.limits import Limits
from services.ipam.settings import Settings
from tests.support.ipam import START, ask, check_store, pool
from tests.support.ipam_lives import Ask, LivingReplica, ModelAgent, ModelBus, Records, Running

POOL = pool("a", "10.0.0.0/28", block_size=30)
LATER = START + 10


class Story:
    """Two replicas, two nodes."""

    def __init__(self) -> None:
        self.store = Records()
        self.store.put(POOL)
        self.replicas = [LivingReplica(self.store, Limits()) for _ in range(2)]
        self.tend(0)
        self.agents = [ModelAgent(NodeName(f"n{i}"), created=START) for i in range(2)]
        for agent in self.agents:
            agent.listen(self.store)
            self.store.put(agent.resource())
        self.hear()

    def hear(self) -> None:
        for replica in self.replicas:
            replica.hear()

    def tend(self, replica: int) -> None:
        one = self.replicas[replica]
        options = Settings(recovery_settle_s=0.0)
        for _ in range(4):
            one.hear()
            keeper = Keeper(ModelBus(self.store), one, Health(), options, now=lambda: LATER)  # type: ignore[arg-type]
            self.finish(Running(replica, 0, keeper.tend(one.words)))
        one.hear()

    def finish(self, one: Running) -> Running:
        while not one.done:
            one.step()
        return one

    def asks(self, node: int, handle: str, replica: int) -> tuple[Ask, Running]:
        agent = self.agents[node]
        asked = agent.ask(ask(handle, agent.node, families=(4,)))
        return asked, Running(replica, 0, self.replicas[replica].settle(asked.request, LATER), asked=asked)

    def add(self, node: int, handle: str, replica: int = 0) -> tuple[str, ...]:
        asked, running = self.asks(node, handle, replica)
        asked.reply = self.finish(running).result
        assert isinstance(asked.reply, Assigned), asked.reply
        self.agents[node].hear(asked)
        return self.agents[node].pods[HandleId(handle)]

    def is_ready(self) -> bool:
        epoch = self.store.get(EPOCH, ()).value
        return epoch is not None and epoch.state == "ready"


def test_a_new_bus_is_ready_before_anybody_speaks() -> None:
    assert Story().is_ready()


def test_an_answer_that_is_under_way_during_a_wipe_is_waited_for() -> None:
    story = Story()
    asked, running = story.asks(0, "slow", 0)
    asked.reply = story.finish(running).result
    story.replicas[0].restart()
    story.store.wipe(LATER, made_anew=True)
    story.replicas[0].restart()
    for _ in range(2):
        story.tend(0)
        for agent in story.agents:
            agent.speak(story.store)
    story.tend(0)
    assert not story.is_ready(), "n0 may not speak: an answer of the former life may still come"
    story.agents[0].hear(asked)
    story.agents[0].speak(story.store)
    story.tend(0)
    assert story.is_ready()
    assert story.add(1, "other") != story.agents[0].pods[HandleId("slow")]
    assert story.agents[0].pods[HandleId("slow")][0] in check_store(story.store)


def test_a_replica_that_has_not_heard_of_the_wipe_tells_nobody_what_it_wrote() -> None:
    story = Story()
    story.add(0, "before", replica=1)
    story.hear()
    story.store.wipe(LATER, made_anew=False)
    asked, running = story.asks(1, "stale", 1)
    asked.reply = story.finish(running).result
    assert isinstance(asked.reply, Busy)
    story.agents[1].hear(asked)
    for _ in range(2):
        story.tend(0)
        for agent in story.agents:
            agent.speak(story.store)
    story.tend(0)
    assert story.is_ready()
    held = check_store(story.store)
    assert held[story.agents[0].pods[HandleId("before")][0]] == "before"


def test_a_silent_node_is_awaited() -> None:
    story = Story()
    address = story.add(0, "web")
    story.agents[0].announce(story.store)
    story.agents[0].die()
    story.store.wipe(LATER, made_anew=True)
    for replica in story.replicas:
        replica.restart()
    story.agents[1].speak(story.store)
    story.tend(0)
    story.agents[1].speak(story.store)
    story.tend(0)
    assert not story.is_ready()
    assert story.store.get(EPOCH, ()).value.missing == ("n0",)
    story.agents[0].alive = True
    story.agents[0].speak(story.store)
    story.tend(0)
    assert story.is_ready()
    assert check_store(story.store) == {address[0]: "web"}
    assert story.store.values(HANDLE)[0].node == "n0"


class Installation(Story):
    """A new bus in a cluster that is older than it, as the first installation of all is."""

    def __init__(self) -> None:
        self.now = LATER
        self.store = Records()
        self.store.put(POOL)
        self.agents = [ModelAgent(NodeName(f"n{i}"), created=START - 1000) for i in range(2)]
        for agent in self.agents:
            self.store.put(agent.resource())
        self.replicas = [LivingReplica(self.store, Limits())]
        bus = ModelBus(self.store)
        options = Settings(recovery_settle_s=6.0)
        self.keeper = Keeper(bus, self.replicas[0], Health(), options, now=lambda: self.now)  # type: ignore[arg-type]

    def tend(self, replica: int) -> None:
        one = self.replicas[replica]
        one.hear()
        self.again = self.finish(Running(replica, 0, self.keeper.tend(one.words))).result


def test_a_new_bus_in_an_older_cluster_does_not_await_silent_nodes() -> None:
    story = Installation()
    story.tend(0)
    assert (story.is_ready(), story.again) == (False, None), "nobody has spoken: it may be a bus that was lost"
    story.agents[0].speak(story.store)
    story.tend(0)
    assert (story.is_ready(), story.again) == (False, 6.0), "others are given time to contradict"
    story.now += 6.0
    story.tend(0)
    assert story.is_ready()
    story.tend(0)
    assert story.is_ready(), "the silent node is not awaited afterwards, either"


def test_a_placeholder_is_no_word() -> None:
    story = Installation()
    story.store.put(Fact(HOLDING, ("n0",), Holding(node=NodeName("n0"), complete=False)))
    story.tend(0)
    assert (story.is_ready(), story.again) == (False, None), "its agent is about to speak, and has not yet"
    story.now += 60.0
    story.tend(0)
    assert not story.is_ready()
    story.agents[0].epoch = "before"
    story.agents[0].speak(story.store)
    story.tend(0)
    assert story.store.get(EPOCH, ()).value.state == "recovering"


def test_one_word_of_an_earlier_life_makes_an_older_cluster_a_lost_bus() -> None:
    story = Installation()
    story.agents[0].speak(story.store)
    story.tend(0)
    story.agents[1].epoch = "before"
    story.agents[1].speak(story.store)
    story.now += 6.0
    story.tend(0)
    epoch = story.store.get(EPOCH, ()).value
    assert (epoch.state, epoch.missing) == ("recovering", ("n0", "n1"))


def test_what_an_agent_kept_on_its_disk_makes_an_older_cluster_a_lost_bus() -> None:
    story = Installation()
    warm = Held(handle=HandleId("warm.n1.1"), addresses=("10.0.0.1",))
    story.store.put(Fact(HOLDING, ("n1",), Holding(node=NodeName("n1"), held=(warm,))))
    story.tend(0)
    assert story.store.get(EPOCH, ()).value.state == "recovering"
