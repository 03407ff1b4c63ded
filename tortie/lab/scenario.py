"""What a scenario file says: a small cluster, a list of steps, and what must be true after each. Pure.

The file's keys are the fields of the structs below; a wrong key or type is a ScenarioFault that names its path. The
actions of a step keep the order in which the file has them. Placeholders (`@ip(develop/web)`) stay in the texts: they
are known only while it runs, see `placeholders`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import yaml

from bus_schemas.ids import PodKey
from tortie.lab.errors import ScenarioFault
from tortie.pods import manifest

Labels = dict[str, str]
LabelChange = dict[str, str | None]
Row = dict[str, Any]
"""Keys and values as `ip -j` prints them; what is left out is free."""


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class BgpRouter(_Part, frozen=True, kw_only=True):
    asn: int
    neighbours: dict[str, int] = {}
    """Node name -> AS number."""
    announces: tuple[str, ...] = ()
    """Networks that are behind it; the first address of each is its own."""


class External(_Part, frozen=True, kw_only=True):
    """A router that is no part of the cluster: at most one of the programs that speak BGP."""

    bird: BgpRouter | None = None
    frr: BgpRouter | None = None
    gobgp: BgpRouter | None = None
    routes: dict[str, str] = {}
    """Static routes: network -> node that forwards."""

    @property
    def routers(self) -> dict[str, BgpRouter]:
        """By program."""
        known = {"bird": self.bird, "frr": self.frr, "gobgp": self.gobgp}
        return {name: router for name, router in known.items() if router is not None}

    @property
    def router(self) -> BgpRouter | None:
        return next(iter(self.routers.values()), None)


class NodeSpec(_Part, frozen=True, kw_only=True):
    address: str
    """With prefix length."""
    address6: str = ""
    """A second one, of IPv6, for a node with both families."""
    labels: Labels = {}
    external: External | None = None

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.address, self.address6) if self.address6 else (self.address,)


class PodSpec(_Part, frozen=True, kw_only=True):
    node: str
    labels: Labels = {}
    annotations: Labels = {}
    listen: tuple[str, ...] = ()
    """`tcp/80`."""
    ports: dict[str, str] = {}
    """Named container ports: name -> `tcp/80`."""
    service_account: str = msgspec.field(default="default", name="serviceAccount")
    addresses: tuple[str, ...] = ()
    """Where the network is flannel's: those that it gets; default: the next ones of its node."""


class WireExpectation(_Part, frozen=True, kw_only=True):
    on: str
    traffic: str
    seen: str


class SeenExpectation(_Part, frozen=True, kw_only=True):
    """Who came, and who answered: what address translation did to a connection of TCP."""

    traffic: str
    as_: str = msgspec.field(default="", name="as")
    """The source address that the other end saw."""
    by: str = ""
    """The address of the end that answered."""


class CommandExpectation(_Part, frozen=True, kw_only=True):
    run: str
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


class Expect(_Part, frozen=True, kw_only=True):
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    routes: dict[str, tuple[Row, ...]] = {}
    no_routes: dict[str, tuple[Row, ...]] = {}
    neighbours: dict[str, tuple[Row, ...]] = {}
    fdb: dict[str, tuple[Row, ...]] = {}
    wire: tuple[WireExpectation, ...] = ()
    refuse: tuple[str, ...] = ()
    """Traffic that is answered by a reset or an ICMP error."""
    seen: tuple[SeenExpectation, ...] = ()
    mtu: dict[str, int] = {}
    command: tuple[CommandExpectation, ...] = ()


@dataclass(frozen=True)
class Apply:
    manifests: str


@dataclass(frozen=True)
class Reference:
    """`Kind/namespace/name` or `Kind/name`."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return "/".join(filter(None, (self.kind, self.namespace, self.name)))


@dataclass(frozen=True)
class Delete:
    what: tuple[Reference, ...]


@dataclass(frozen=True)
class Label:
    changes: Mapping[Reference, LabelChange]


@dataclass(frozen=True)
class Start:
    pods: Mapping[PodKey, PodSpec]


@dataclass(frozen=True)
class Stop:
    pods: tuple[PodKey, ...]


@dataclass(frozen=True)
class Kill:
    """kill -9 of processes, by their names in `tortie lab ps`: nobody starts them again but `Revive`."""

    processes: tuple[str, ...]


@dataclass(frozen=True)
class Revive:
    processes: tuple[str, ...]


Action = Apply | Delete | Label | Start | Stop | Kill | Revive

Network = Literal["tortie", "flannel"]
"""Whose the pods' addresses, links and routes are: Tortie's; or flannel's, and then the agents have only policy."""


@dataclass(frozen=True)
class Step:
    do: str
    actions: tuple[Action, ...]
    expect: Expect


@dataclass(frozen=True)
class Scenario:
    name: str
    nodes: Mapping[str, NodeSpec]
    about: str = ""
    resources: str = ""
    namespaces: Mapping[str, Labels] = field(default_factory=dict)
    pods: Mapping[PodKey, PodSpec] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    kernel: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Of every agent, by variable."""
    network: Network = "tortie"
    text: str = ""
    """The whole file, in which placeholders are looked for."""

    @property
    def speaks_bgp(self) -> bool:
        """BGP takes its time to converge, and needs BIRD."""
        return bool(re.search(r"kind: *BGPPeer|protocol: *bird|\b(?:bird|frr|gobgp):", self.text))


# --- where a packet goes from and to


@dataclass(frozen=True)
class Place:
    """One end of traffic: a pod `ns/name`, `node:<name>`, or `ip:<address>`."""

    kind: Literal["pod", "node", "ip"]
    name: str

    def __str__(self) -> str:
        return self.name if self.kind == "pod" else f"{self.kind}:{self.name}"


@dataclass(frozen=True)
class Traffic:
    source: Place
    destination: Place
    protocol: str = "icmp"
    port: int = 0

    def __str__(self) -> str:
        way = f"{self.source} -> {self.destination}"
        return way if self.protocol == "icmp" else f"{way} {self.protocol}/{self.port}"


_TRAFFIC = re.compile(r"(\S+)\s*->\s*(\S+)(?:\s+(\S+))?")


def place(text: str) -> Place:
    """Raises ScenarioFault."""
    match text.split(":", 1):
        case ["node", name]:
            return Place("node", name)
        case ["ip", address]:
            return Place("ip", address)
    return Place("pod", str(pod_key(text)))


def pod_key(text: str) -> PodKey:
    """`namespace/name`. Raises ScenarioFault."""
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name or "/" in name:
        raise ScenarioFault(f"a pod is written <namespace>/<name>, not {text!r}")
    return PodKey(namespace, name)


def traffic(text: str) -> Traffic:
    """`a/x -> b/y tcp/80`; no port, or `icmp`, is an ICMP echo. Raises ScenarioFault."""
    found = _TRAFFIC.fullmatch(text.strip())
    if not found:
        raise ScenarioFault(f"traffic is written `<from> -> <to> [tcp/80]`, not {text!r}")
    source, destination, service = found.groups()
    if service in (None, "icmp"):
        return Traffic(place(source), place(destination))
    return Traffic(place(source), place(destination), *port(service))


def port(text: str) -> tuple[str, int]:
    """`tcp/80` -> ("tcp", 80). Raises ScenarioFault."""
    try:
        return manifest.port(text)
    except ValueError as error:
        raise ScenarioFault(str(error)) from error


def reference(text: str) -> Reference:
    """Raises ScenarioFault."""
    match text.split("/"):
        case [kind, name] if kind and name:
            return Reference(kind, "", name)
        case [kind, namespace, name] if kind and namespace and name:
            return Reference(kind, namespace, name)
    raise ScenarioFault(f"a resource is written Kind/namespace/name or Kind/name, not {text!r}")


# --- reading a file


class _StepFields(_Part, frozen=True, kw_only=True):
    do: str
    apply: str = ""
    delete: tuple[str, ...] = ()
    label: dict[str, LabelChange] = {}
    start: dict[str, PodSpec] = {}
    stop: tuple[str, ...] = ()
    kill: tuple[str, ...] = ()
    revive: tuple[str, ...] = ()
    expect: Expect = Expect()


class _File(_Part, frozen=True, kw_only=True):
    name: str
    nodes: dict[str, NodeSpec]
    about: str = ""
    resources: str = ""
    namespaces: dict[str, Labels] = {}
    pods: dict[str, PodSpec] = {}
    steps: tuple[_StepFields, ...] = ()
    kernel: tuple[str, ...] = ()
    settings: dict[str, str] = {}
    network: Network = "tortie"


class _Loader(yaml.SafeLoader):
    """YAML 1.2 booleans: `on` is a key of `wire`, not a truth value."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), list("tf"))


def load(text: str, source: str) -> Any:
    """The file's plain values. Raises ScenarioFault."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ScenarioFault(f"{source}: not YAML: {error}") from error


def read(text: str, source: str = "scenario") -> Scenario:
    """The scenario in a file's text. Raises ScenarioFault, which begins with `source`."""
    document = load(text, source)
    try:
        file = msgspec.convert(document, _File)
    except msgspec.ValidationError as error:
        raise ScenarioFault(f"{source}: {error}") from error
    try:
        scenario = Scenario(
            name=file.name,
            about=file.about.strip(),
            nodes=file.nodes,
            resources=file.resources,
            namespaces=file.namespaces,
            pods={pod_key(key): spec for key, spec in file.pods.items()},
            # msgspec gives fields, not their order in the file, which for a step is the order of its actions
            steps=tuple(
                _step(step, tuple(raw)) for step, raw in zip(file.steps, document.get("steps", ()), strict=True)
            ),
            kernel=file.kernel,
            settings=file.settings,
            network=file.network,
            text=text,
        )
        _check(scenario)
    except ScenarioFault as error:
        raise ScenarioFault(f"{source}: {error}") from error
    return scenario


def _step(fields: _StepFields, order: tuple[str, ...]) -> Step:
    actions: dict[str, Action] = {
        "apply": Apply(fields.apply),
        "delete": Delete(tuple(map(reference, fields.delete))),
        "label": Label({reference(what): change for what, change in fields.label.items()}),
        "start": Start({pod_key(key): spec for key, spec in fields.start.items()}),
        "stop": Stop(tuple(map(pod_key, fields.stop))),
        "kill": Kill(fields.kill),
        "revive": Revive(fields.revive),
    }
    return Step(fields.do, tuple(actions[key] for key in order if key in actions), fields.expect)


def _check(scenario: Scenario) -> None:
    """What can be known to be wrong before anything is started."""
    if not scenario.nodes:
        raise ScenarioFault("nodes: at least one is needed")
    for name in scenario.settings:
        if not name.startswith("TORTIE_"):
            raise ScenarioFault(f"settings.{name}: an agent's settings begin with TORTIE_")
    for name, node in scenario.nodes.items():
        if node.external is not None:
            _check_external(f"nodes.{name}.external", node.external, scenario.nodes)
        if node.external is not None and scenario.network != "tortie":
            raise ScenarioFault(f"nodes.{name}.external: with `network: {scenario.network}` every node has an agent")
    pods = dict(_pods(scenario))
    for key, spec in pods.items():
        if spec.addresses and scenario.network == "tortie":
            raise ScenarioFault(f"pods.{key}.addresses: only with `network: flannel`; else the annotation ipAddrs asks")
        if spec.node not in scenario.nodes:
            raise ScenarioFault(f"pods.{key}.node: there is no node {spec.node!r}")
        for text in (*spec.listen, *spec.ports.values()):
            port(text)
    for number, step in enumerate(scenario.steps, 1):
        expect = step.expect
        told = (*(each.traffic for each in expect.wire), *(each.traffic for each in expect.seen))
        for text in (*expect.allow, *expect.deny, *expect.refuse, *told):
            way = traffic(text)
            for end in (way.source, way.destination):
                known = end.kind == "ip" or end.name in (map(str, pods) if end.kind == "pod" else scenario.nodes)
                if not known:
                    raise ScenarioFault(f"step {number} ({step.do}): {text!r}: there is no {end.kind} {end.name!r}")
        hosts = {*map(str, pods), *scenario.nodes}
        for table in (expect.routes, expect.no_routes, expect.neighbours, expect.fdb, expect.mtu):
            for where in table:
                if where not in hosts:
                    raise ScenarioFault(f"step {number} ({step.do}): there is no node or pod {where!r}")


def _check_external(where: str, external: External, nodes: Mapping[str, NodeSpec]) -> None:
    if len(external.routers) > 1:
        raise ScenarioFault(f"{where}: one of bird, frr and gobgp, not {' and '.join(external.routers)}")
    if not external.routers and not external.routes:
        raise ScenarioFault(f"{where}: one of bird, frr, gobgp and routes is needed")
    named = [*external.routes.values(), *(external.router.neighbours if external.router is not None else ())]
    for node in named:
        if node not in nodes:
            raise ScenarioFault(f"{where}: there is no node {node!r}")
    for text in (*external.routes, *(external.router.announces if external.router is not None else ())):
        try:
            network = ipaddress.ip_network(text)
        except ValueError as error:
            raise ScenarioFault(f"{where}: {error}") from error
        if network.num_addresses < 4:
            raise ScenarioFault(f"{where}: {text} has no room for an address of the router")


def _pods(scenario: Scenario) -> Iterator[tuple[PodKey, PodSpec]]:
    """Every pod that the scenario has at any time."""
    yield from scenario.pods.items()
    for step in scenario.steps:
        for action in step.actions:
            if isinstance(action, Start):
                yield from action.pods.items()
