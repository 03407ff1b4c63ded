"""The cases of bird_golden.json as worlds: resources into the core, its record rendered, the text read back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from bus_schemas.bgp import MeshMember, Secret, Speaker, with_mesh, with_workloads
from bus_schemas.ids import NodeName
from bus_schemas.manifests import Accepted, read_object
from bus_schemas.resources import Resource
from bus_schemas.routes import Route
from bus_schemas.subjects import DESIRED, Fact
from services.route_distribution.bgp import BgpCore
from tests.support.bird_evaluator import Announcement

Case = dict[str, Any]
WITHOUT_BLOCKS = "calico-bird/bgpfilter/node_mesh/priority"
"""The blocks of these cases are listed, but were not there when the golden files were made."""
LEARNT_PATH = (64999,)
"""AS path of a synthetic route of RTS_BGP that names none."""
Key = tuple[str, str]


def resource(manifest: dict[str, Any]) -> Resource:
    """A manifest of a case, as its YAML meant it: labels are text, and `5663:12` is no number to base 60."""
    value = deepcopy(manifest)
    labels = value.get("metadata", {}).get("labels") or {}
    for key, label in labels.items():
        labels[key] = str(label).lower() if isinstance(label, bool) else str(label)
    for advertisement in (value.get("spec") or {}).get("prefixAdvertisements") or ():
        advertisement["communities"] = [
            f"{one // 60}:{one % 60}" if isinstance(one, int) else one for one in advertisement["communities"]
        ]
    outcome = read_object(value)
    assert isinstance(outcome, Accepted), outcome
    return outcome.resource


class World:
    """A case's resources, which change, and a core that is told of every change."""

    def __init__(self, case: Case) -> None:
        self.node = NodeName(case["node"])
        self.core = BgpCore()
        self.manifests: dict[Key, dict[str, Any]] = {}
        self.secrets: dict[Secret, str] = {}
        self.workloads: list[tuple[str, str]] = []
        self._members: dict[str, MeshMember] = {}
        for manifest in (*case["resources"], *case.get("applied_on_top", ())):
            self.put(manifest)
        for block in () if case["id"].startswith(WITHOUT_BLOCKS) else case.get("block_affinities", ()):
            if block["state"] != "pending":
                self.core.apply_route(block["cidr"], Route(cidr=block["cidr"], node=NodeName(block["node"])))
        self._take()
        for text in case.get("changes", ()):
            self.change(text)
            self._take()

    def put(self, manifest: dict[str, Any]) -> None:
        self.manifests[manifest["kind"], manifest["metadata"]["name"]] = manifest
        told = resource(manifest)
        self.core.apply(Fact(DESIRED[type(told)], told.key, told))

    def delete(self, kind: str, name: str) -> None:
        told = resource(self.manifests.pop((kind, name)))
        self.core.apply(Fact(DESIRED[type(told)], told.key, None))

    def set(self, kind: str, name: str, path: str, value: Any) -> None:
        manifest = deepcopy(self.manifests[kind, name])
        manifest["spec"][path] = value
        self.put(manifest)

    def change(self, text: str) -> None:
        """One line of a case's `changes`."""
        if found := re.fullmatch(r"(\w+) (\S+) deleted|delete (\w+) (\S+) -> \d+", text):
            self.delete(found[1] or found[3], found[2] or found[4])
        elif found := re.fullmatch(r"(\w+) ([\w.-]+):? spec\.(\w+) = (\S+)", text):
            self.set(found[1], found[2], found[3], int(found[4]) if found[4].isdecimal() else found[4])
        elif found := re.fullmatch(r"endpoint status \S+: \S+ (\S+) (\S+) peer (\S+)", text):
            self.workloads += [(found[3], found[1]), (found[3], found[2])]
        elif found := re.fullmatch(r"Secret [\w-]+/([\w-]+) \{(\w+): (\S+)\}", text):
            self.secrets[Secret(name=found[1], key=found[2])] = found[3]
        elif found := re.fullmatch(r"touch (\w+) ten times: still \d+", text):
            for _ in range(10):
                self.core.apply(Fact(DESIRED[type(told := resource(self.manifests["Node", found[1]]))], told.key, told))
                self.core.flush()
        else:
            assert "absent" in text, f"a change that nobody has thought of: {text}"

    def speaker(self) -> Speaker:
        """The whole record of the case's node, mesh and pods included."""
        self._take()
        found = self.core.speaker(self.node)
        assert found is not None
        return with_workloads(with_mesh(found, self._members.values()), self.workloads)

    def _take(self) -> None:
        """What the core publishes now."""
        for name, member in self.core.flush().members.items():
            self._members.pop(name, None)
            if member is not None:
                self._members[name] = member

    def rebuilt(self) -> Speaker:
        """The record of a core that was told only how things are now."""
        fresh = BgpCore()
        for manifest in reversed(self.manifests.values()):
            told = resource(manifest)
            fresh.apply(Fact(DESIRED[type(told)], told.key, told))
        for cidr, owner in self.core._owner.items():
            fresh.apply_route(cidr, Route(cidr=cidr, node=owner))
        members = fresh.flush().members
        found = fresh.speaker(self.node)
        assert found is not None
        whole = with_mesh(found, (member for member in members.values() if member is not None))
        return with_workloads(whole, self.workloads)


# --- the text


def sessions(text: str) -> dict[tuple[str, int | None], dict[str, Any]]:
    """Each `protocol bgp` of a configuration, by neighbour and port, in the words of the cases."""
    found = {}
    for name, body in re.findall(r"^protocol bgp (\S+) \{\n(.*?)^\}", text, re.DOTALL | re.MULTILINE):
        session = _session(name, body)
        found[session["neighbor"], session.get("port")] = session
    return found


def _session(name: str, body: str) -> dict[str, Any]:
    def word(pattern: str) -> str | None:
        match = re.search(rf"^\s*{pattern};", body, re.MULTILINE)
        return None if match is None else match[1]

    local = re.search(r"local (?:(\S+) )?port (\d+) as (\d+);", body)
    neighbour = re.search(r"neighbor (\S+) port (\d+) as (\d+);", body)
    assert local is not None
    assert neighbour is not None
    hops = word(r"multihop ?(\d*)")
    session: dict[str, Any] = {
        "name": name,
        "origin": name.partition("_")[0].lower(),
        "neighbor": neighbour[1],
        "remote_as": neighbour[3],
        "local_as": local[3],
        "listen_port": int(local[2]),
        "passive": "passive on;" in body,
        "ttl_security": "ttl security on;" in body,
        "multihop": int(hops) if hops else True,
        "export_to_same_as": "(true)" in body,
    }
    optional: Mapping[str, Any] = {
        "port": None if neighbour[2] == "179" else int(neighbour[2]),
        "source_address": local[1],
        "password": word(r'password "(.*)"'),
        "rr_client": True if "rr client;" in body else None,
        "rr_cluster_id": word(r"rr cluster id (\S+)"),
        "next_hop": word(r"next hop (\S+)"),
        "graceful_restart_time": int(word(r"graceful restart time (\d+)") or 0) or None,
        "allow_local_as": word(r"allow local as (\d+)"),
    }
    return {**session, **{key: value for key, value in optional.items() if value is not None}}


def statics(text: str) -> set[tuple[str, str]]:
    return {
        (net, gateway or "blackhole")
        for net, gateway in re.findall(r"^\s*route (\S+) (?:blackhole|via (\S+));", text, re.MULTILINE)
    }


# --- routes


def announcement(route: Mapping[str, Any]) -> Announcement:
    """A synthetic route, with our names for the devices of Calico."""
    name = str(route.get("ifname", ""))
    name = f"tor{name.removeprefix('cali')}" if name.startswith("cali") else name.replace(".calico", ".tortie")
    return Announcement(
        net=route["net"],
        source=route["source"],
        ifname=name,
        blackhole=route["source"] == "RTS_STATIC",
        numbers={key: route[key] for key in ("bgp_local_pref", "krt_metric") if key in route},
        path=tuple(route.get("bgp_path", LEARNT_PATH if route["source"] == "RTS_BGP" else ())),
        communities=frozenset(map(tuple, route.get("bgp_community", ()))),
    )
