"""A user's test of policies as a scenario of the lab (`tortie.lab.scenario`), also when it is written shorter.

    name: the shop's database              # all that is needed
    pods:
      shop/web: {labels: {app: web}}
      shop/db: {labels: {app: db}, ports: {sql: tcp/5432}}
    policies: |                            # or -f manifests/ beside it
      ...
    allow: [shop/web -> shop/db tcp/5432]
    deny: [default/client -> shop/db tcp/5432]

What a scenario wants beyond that gets a value that policy does not ask for: one node, on which the pods without a node
are; a name; the lines `allow` and `deny` at the top become the last step. A pod that is only the end of a line, and is
described nowhere, is a pod without labels.
"""

from __future__ import annotations

from typing import Any

import yaml

from tortie.lab import scenario
from tortie.lab.errors import ScenarioFault
from tortie.lab.scenario import Scenario

NODE = "node1"
_NODE_ADDRESS = "10.0.0.15/24"


def read(text: str, source: str) -> Scenario:
    """Raises ScenarioFault."""
    document = scenario.load(text, source)
    if not isinstance(document, dict):
        raise ScenarioFault(f"{source}: neither a scenario nor pods with allow and deny")
    if "nodes" in document and not {"allow", "deny", "policies"} & document.keys():
        return scenario.read(text, source)
    return scenario.read(yaml.safe_dump(_completed(document, source), sort_keys=False, width=10**6), source)


def _completed(document: dict[str, Any], source: str) -> dict[str, Any]:
    whole = {"name": source, **document}
    whole.setdefault("nodes", {NODE: {"address": _NODE_ADDRESS}})
    node = next(iter(whole["nodes"]), NODE)
    top = {key: list(whole.pop(key)) for key in ("allow", "deny") if whole.get(key)}
    pods = {key: {"node": node, **(spec or {})} for key, spec in (whole.get("pods") or {}).items()}
    for line in (line for lines in top.values() for line in lines):
        try:
            way = scenario.traffic(line)
        except ScenarioFault as error:
            raise ScenarioFault(f"{source}: {line!r}: {error}") from error
        for end in (way.source, way.destination):
            if end.kind == "pod":
                pods.setdefault(end.name, {"node": node})
    whole["pods"] = pods
    policies = whole.pop("policies", "")
    if policies:
        whole["resources"] = f"{whole.get('resources', '')}\n---\n{policies}"
    if top:
        whole["steps"] = [*(whole.get("steps") or []), {"do": "as it is written", "expect": top}]
    return whole
