"""Which nodes have an agent that works, from their signs of life. Pure; times are given.

A sign that ended is no word about the node while the bus itself was away: the time of an absence begins when it is
heard of, and agents that live speak again within seconds.

An agent that has only policy is none here: whether its node's network is available is for whoever makes that to say.
"""

from __future__ import annotations

from bus_schemas.status import MODE, POLICY_ONLY, Status
from services.kube_bridge.conditions import Agent

COMPONENT = "node_dataplane"


class Agents:
    def __init__(self) -> None:
        self._agents: dict[str, Agent] = {}

    def hear(self, key: tuple[str, ...], status: Status | None, now_s: float) -> str | None:
        """The node of which something is new."""
        component, instance = key
        if component != COMPONENT:
            return None
        node = status.node or instance if status is not None else instance
        if status is not None and status.detail.get(MODE) == POLICY_ONLY:
            self._agents.pop(node, None)
            return None
        before = self._agents.get(node)
        if status is None:
            if before is None or not before.alive:
                return None
            after = Agent(False, False, (), now_s)
        else:
            same = before is not None and before.alive and before.ready == status.ready
            since = before.since if before is not None and same else now_s
            causes = () if status.ready else status.causes
            after = Agent(True, status.ready, causes, since)
        self._agents[node] = after
        return node if after != before else None

    def get(self, node: str) -> Agent | None:
        return self._agents.get(node)

    def forget(self, node: str) -> None:
        self._agents.pop(node, None)

    def unwell(self) -> list[str]:
        """Nodes whose time may run out."""
        return [node for node, agent in self._agents.items() if not (agent.alive and agent.ready)]
