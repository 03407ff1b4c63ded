"""A speaker's record as the configuration of a stock BIRD 2, both families in one daemon.

    Speaker (with the mesh) + passwords ---> bird.conf      (pure; equal input, equal text)

    device, direct     what interfaces the node has, and their subnets: peers are reached by them
    blocks<family>     static: what the node announces
    via<family>        static: how a peer is reached that is not on the node's subnet
    kernel<family>     to the kernel what BIRD programmes; from it what others did, but not what the agent did
    Mesh_, Node_ ...   a session each

Nothing in the text depends on its place among its like, so that one more peer leaves the other sessions as they are.
A session whose password is missing is `disabled`: without it the peer would not talk to us anyway, and must not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bus_schemas.bgp import BGP_PORT, Secret, Session, Speaker
from services.node_dataplane.bird import filters
from services.node_dataplane.bird.language import Statement, lines
from services.node_dataplane.bird.naming import protocol_of

FAMILIES = (4, 6)

_QUIET = ("kube-ipvs*", "kube-dummy*", "nodelocaldns")
"""Devices with addresses of services, which are on every node."""
_LOGGED = {
    "None": (),
    "Fatal": ("fatal", "bug"),
    "Error": ("fatal", "bug", "error", "auth"),
    "Warning": ("fatal", "bug", "error", "auth", "warning", "remote"),
    "Info": ("fatal", "bug", "error", "auth", "warning", "remote", "info"),
}
_TRACED = {"Debug": "{ states }", "Trace": "all"}


RESTART_WAIT_S = 60
"""After a crash, BIRD changes nothing in the kernel until all peers have told everything again, or for so long: a peer
that is gone for good shall not hold it up for BIRD's 240 s."""
LOG_BYTES = 1 << 20
"""The log is moved to `<log>.1` when it is longer."""


def render(speaker: Speaker, passwords: Mapping[Secret, str], *, log: str = "") -> str:
    """The whole file. `log`: the path that BIRD writes to; empty: its standard error."""
    text = "\n".join(_sections(speaker, passwords, log))
    return f"{text}\n"


def _sections(speaker: Speaker, passwords: Mapping[Secret, str], log: str) -> Iterator[str]:
    yield f"# The BGP of the node {_comment(speaker.node)}, rendered by its agent. What is written here is lost."
    yield f"router id {speaker.router_id};"
    yield f"graceful restart wait {RESTART_WAIT_S};"
    yield from _logging(speaker.log_level, log)
    yield ""
    yield "protocol device { scan time 2; }"
    yield from _direct(speaker)
    for family in FAMILIES:
        yield ""
        for function in filters.functions(speaker, family):
            yield str(function)
        yield from _statics(speaker, family)
        yield from _kernel(family)
    for session in speaker.sessions:
        if _speaks(speaker, session):
            yield ""
            yield from _session(speaker, session, passwords)


def _speaks(speaker: Speaker, session: Session) -> bool:
    """A node without an address of the family has no sessions of it."""
    return bool(speaker.address(session.family))


def _logging(level: str, log: str) -> Iterator[str]:
    classes = _LOGGED.get(level)
    to = f'"{log}" {LOG_BYTES} "{log}.1"' if log else "stderr"
    if classes is None:
        yield f"log {to} all;"
    elif classes:
        yield f"log {to} {{ {', '.join(classes)} }};"
    if level in _TRACED:
        yield f"debug protocols {_TRACED[level]};"


def _direct(speaker: Speaker) -> Iterator[str]:
    ignored = [filters.POD_DEVICES, *filters.TUNNELS, *_QUIET, *speaker.ignored_interfaces]
    patterns = ", ".join([*(f'-"{pattern}"' for pattern in dict.fromkeys(ignored)), '"*"'])
    yield "protocol direct direct1 {"
    yield "  ipv4;"
    yield "  ipv6;"
    yield f"  interface {patterns};"
    yield "}"


def _statics(speaker: Speaker, family: int) -> Iterator[str]:
    announced = [
        cidr
        for cidr in dict.fromkeys((*speaker.blocks, *speaker.singles, *speaker.services))
        if (":" in cidr) == (family == 6)
    ]
    if announced:
        yield f"protocol static blocks{family} {{"
        yield f"  ipv{family};"
        for cidr in announced:
            yield f"  route {cidr} blackhole;"
        yield "}"
    gateways = {s.neighbour: s.via for s in speaker.sessions if s.via and s.family == family and _speaks(speaker, s)}
    if gateways:
        width = 32 if family == 4 else 128
        yield f"protocol static via{family} {{"
        yield f"  ipv{family};"
        for neighbour, gateway in gateways.items():
            yield f"  route {neighbour}/{width} via {gateway};"
        yield "}"


def _kernel(family: int) -> Iterator[str]:
    yield f"protocol kernel kernel{family} {{"
    yield "  learn;"
    yield "  persist;"
    yield "  metric 0;"
    yield "  scan time 2;"
    yield "  merge paths on;"
    yield "  graceful restart;"
    yield f"  ipv{family} {{"
    yield f"    import filter {{ {filters.learn(family)}(); accept; }};"
    yield f"    export filter {{ {filters.program(family)}(); accept; }};"
    yield "  };"
    yield "}"


def _session(speaker: Speaker, session: Session, passwords: Mapping[Secret, str]) -> Iterator[str]:
    options, family = session.options, session.family
    yield f"# {session.origin}: {_comment(session.peer)}" if session.peer else f"# {session.origin}"
    yield f"protocol bgp {protocol_of(session)} {{"
    yield f"  local {_local(speaker, session)};"
    yield f"  neighbor {session.neighbour} port {session.port or BGP_PORT} as {session.remote_as};"
    if options.ttl_security:
        yield f"  multihop {options.ttl_security};"
        yield "  ttl security on;"
    else:
        yield "  multihop;"
    if speaker.bind_node_address:
        yield "  strict bind yes;"
    if session.passive:
        yield "  passive on;"
    if options.password is not None:
        password = passwords.get(options.password)
        yield "  disabled yes;" if password is None else f"  password {_quoted(password)};"
    if session.rr_client:
        yield "  rr client;"
        yield f"  rr cluster id {speaker.cluster_id};"
    if options.allowed_own_as:
        yield f"  allow local as {options.allowed_own_as};"
    if options.keepalive_s:
        yield f"  keepalive time {options.keepalive_s};"
        yield f"  hold time {max(3 * options.keepalive_s, 3)};"
    yield "  graceful restart on;"
    if options.restart_s:
        yield f"  graceful restart time {options.restart_s};"
    yield "  connect delay time 2;"
    yield "  connect retry time 5;"
    yield "  error wait time 5, 30;"
    yield f"  ipv{family} {{"
    yield f"    import {_filter(filters.import_filter(speaker, session))};"
    yield f"    export {_filter(filters.export_filter(speaker, session))};"
    yield "    add paths on;"
    yield "    gateway recursive;"
    if options.next_hop != "auto":
        yield f"    next hop {options.next_hop};"
    yield "  };"
    yield "}"


def _local(speaker: Speaker, session: Session) -> str:
    """Where from we connect and listen. Without a source the kernel chooses, unless we listen on our address only."""
    own = speaker.address(session.family)
    address = f"{own} " if session.options.source or speaker.bind_node_address else ""
    return f"{address}port {speaker.listen_port or BGP_PORT} as {speaker.local_as(session.options)}"


def _filter(statements: tuple[Statement, ...]) -> str:
    return f"filter {{ {' '.join(line.strip() for line in lines(statements, 0))} }}"


def _comment(text: str) -> str:
    return text.replace("\n", " ").replace("\r", " ")


def _quoted(password: str) -> str:
    """BIRD's strings have no escapes: what cannot stand in one is refused where passwords are read."""
    assert not {'"', "\n"} & set(password)
    return f'"{password}"'
