"""The clusters that a lab starts with when nobody gives it a scenario."""

from __future__ import annotations

import yaml

from tortie.lab import scenario
from tortie.lab.errors import ScenarioFault
from tortie.lab.scenario import Scenario

MAX_NODES = 20

POOL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: default-ipv4-ippool}
spec: {cidr: 10.244.0.0/16, blockSize: 26, vxlanMode: CrossSubnet, natOutgoing: true}
"""


def cluster(nodes: int) -> Scenario:
    """That many nodes, the last third of them in a second subnet; a shop in one namespace, a client in another.
    Raises ScenarioFault."""
    if not 1 <= nodes <= MAX_NODES:
        raise ScenarioFault(f"a lab has 1 to {MAX_NODES} nodes, not {nodes}")
    far = nodes // 3
    addresses = {
        f"node{n}": {"address": f"10.0.{'9' if n > nodes - far else '0'}.{10 + n}/24"} for n in range(1, nodes + 1)
    }
    names = list(addresses)
    pods = {
        "shop/web": {"node": names[0], "labels": {"app": "web"}, "listen": ["tcp/80"]},
        "shop/api": {"node": names[1 % nodes], "labels": {"app": "api"}, "listen": ["tcp/80"]},
        "shop/db": {"node": names[-1], "labels": {"app": "db"}, "listen": ["tcp/80"]},
        "other/client": {"node": names[-1], "labels": {"app": "client"}, "listen": ["tcp/80"]},
    }
    document = {
        "name": f"{nodes} nodes",
        "nodes": addresses,
        "resources": POOL,
        "namespaces": {"shop": {"team": "shop"}, "other": {"team": "other"}},
        "pods": pods,
    }
    return scenario.read(yaml.safe_dump(document, sort_keys=False), "the sample cluster")
