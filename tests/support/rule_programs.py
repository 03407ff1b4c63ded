"""Rule programs of Calico's own agent, in the words of `bus_schemas.policy`, and two who judge them.

A program is what one direction of one endpoint is compiled to there: tiers and profiles of a workload, tiers of a host
endpoint before NAT, for what ends at the host, for what is forwarded. Rules are Felix's protocol buffers as JSON.

    program = Program(case)
    program.compiled(packet)     allow, deny or continue, as `verdicts` reads it
    program.rendered(packet)     the same, as the rules in the kernel have it

What one end of a packet is the host itself goes through a host's own policy, anything else is forwarded; a program of a
workload's device is asked what the host endpoint's is asked, but for what ends there, and then its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from bus_schemas.ids import GroupId, RulesId
from bus_schemas.policy import Direction, Group, Icmp, Match, PortRange, Rule, Rules, TierRules
from bus_schemas.subjects import GROUP, RULES, Fact
from services.node_dataplane.nft.table import NodeRules, PolicyTable
from tests.support import compiled_policy, nft_evaluator
from tests.support.compiled_policy import CompiledPolicy
from tests.support.host_worlds import host, hosted
from tests.support.nft_evaluator import Nftables
from tests.support.nft_worlds import OPEN, attach, link, plug, settle

Outcome = Literal["allow", "deny", "continue"]
Raw = Mapping[str, Any]

PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132, "icmp": 1, "icmpv6": 58, "udplite": 136}
CONDITIONS = {
    *("action", "ipVersion", "protocol", "notProtocol"),
    *("icmpType", "icmpTypeCode", "notIcmpType", "notIcmpTypeCode"),
    *("srcNet", "notSrcNet", "dstNet", "notDstNet"),
    *("srcPorts", "notSrcPorts", "dstPorts", "notDstPorts"),
    *("srcIpSetIds", "notSrcIpSetIds", "dstIpSetIds", "notDstIpSetIds", "dstIpPortSetIds"),
    *("srcNamedPortIpSetIds", "notSrcNamedPortIpSetIds", "dstNamedPortIpSetIds", "notDstNamedPortIpSetIds"),
}
REMARKS = {"ruleId", "metadata"}


class Program:
    def __init__(self, case: Raw) -> None:
        self._case = case
        self._facts = list(_groups(case))
        policy = case["policy"]
        self._workload = Direction(
            tiers=self._tiers(policy["tiers"]), profiles=self._profiles(policy["profiles"]), default="deny"
        )
        self._untracked = self._normal = self._forward = self._pre_dnat = OPEN
        if policy["for_xdp"]:
            self._untracked = Direction(tiers=self._tiers(policy["host_normal_tiers"], "pass"), default="allow")
        else:
            if not policy["suppress_normal_host_policy"]:
                profiles = self._profiles(policy["host_profiles"])
                tiers = self._tiers(policy["host_normal_tiers"])
                self._normal = Direction(tiers=tiers, profiles=profiles, default="deny")
            self._forward = Direction(tiers=self._tiers(policy["host_forward_tiers"]), default="allow")
            self._pre_dnat = Direction(tiers=self._tiers(policy["host_pre_dnat_tiers"], "pass"), default="allow")
        self._of_workload = not policy["for_host_interface"]

    # --- two judges

    def compiled(self, sent: Raw) -> Outcome:
        known = CompiledPolicy()
        for fact in self._facts:
            known.learn(fact)
        late = _naive(sent, sent["dst"], sent["dport"])
        early = _naive(sent, *_before_nat(sent))

        def decide(direction: Direction, packet: compiled_policy.Packet) -> Outcome:
            """`continue`: no rule decided."""
            verdict = known.decide("ingress", direction, packet)
            return "continue" if verdict.decision.kind == "default" and verdict.action == "allow" else verdict.action

        if self._case["policy"]["for_xdp"]:
            return decide(self._untracked, early)
        outcome = decide(self._pre_dnat, early)
        if outcome == "continue":
            outcome = decide(self._normal if _is_local(sent) else self._forward, late)
        if outcome != "deny" and self._of_workload:
            outcome = decide(self._workload, late)
        return "deny" if outcome == "deny" else "allow"

    def rendered(self, sent: Raw) -> Outcome:
        table, nft = PolicyTable(NodeRules(failsafe_inbound=(), failsafe_outbound=())), Nftables()
        table.set_devices({"eth0": frozenset()})
        plug(table, "a")
        local = _is_local(sent)
        endpoint = host(
            "host",
            "eth0",
            ingress=self._normal,
            # what would end at the host goes on to the workload
            forward_ingress=self._normal if local else self._forward,
            pre_dnat=self._pre_dnat,
            untracked_ingress=self._untracked,
        )
        for fact in (*self._facts, attach("a", ingress=self._workload), hosted(endpoint)):
            table.apply(fact)
        assert not settle(table, nft).blocked
        packet = nft_evaluator.Packet(
            sent["src"],
            sent["dst"],
            sent["protocol"],
            sent["dport"],
            sent["sport"],
            in_link="eth0",
            out_link=link("a") if self._of_workload else "eth1",
            icmp_type=sent["dport"] & 255,
            icmp_code=sent["dport"] >> 8,
            path="input" if local and not self._of_workload else "forward",
            original=_before_nat(sent) if "pre_nat_dst" in sent else None,
        )
        outcome = nft.send(packet)
        if not outcome.accepted:
            return "deny"
        return "continue" if self._case["policy"]["for_xdp"] and outcome.tracked else "allow"

    # --- tiers

    def _tiers(self, tiers: Iterable[Raw], end: Literal["deny", "pass"] = "deny") -> tuple[TierRules, ...]:
        return tuple(
            TierRules(
                tier=raw["name"],
                rules=tuple(self._rules(policy["rules"]) for policy in raw["policies"]),
                default="pass" if raw.get("end_action") == "pass" else end,
            )
            for raw in tiers
        )

    def _profiles(self, profiles: Iterable[Raw]) -> tuple[RulesId, ...]:
        return tuple(self._rules(profile["rules"]) for profile in profiles)

    def _rules(self, raw: Sequence[Raw]) -> RulesId:
        id_ = RulesId(f"r{len(self._facts)}")
        rules = Rules(policy=f"NetworkPolicy/default/{id_}", ingress=tuple(map(_rule, raw)))
        self._facts.append(Fact(RULES, (id_,), rules))
        return id_


def _is_local(sent: Raw) -> bool:
    return bool(sent.get("to_host") or sent.get("from_host"))


def _before_nat(sent: Raw) -> tuple[str, int]:
    return sent.get("pre_nat_dst") or sent["dst"], sent.get("pre_nat_dport", sent["dport"])


def _naive(sent: Raw, destination: str, port: int) -> compiled_policy.Packet:
    """For ICMP, the file's port is code and type in one."""
    is_icmp = sent["protocol"] in (1, 58)
    return compiled_policy.Packet(
        sent["src"],
        destination,
        sent["protocol"],
        port & 255 if is_icmp else port,
        sent["sport"],
        port >> 8 if is_icmp else 0,
    )


# --- rules


def _rule(raw: Raw) -> Rule:
    unknown = raw.keys() - CONDITIONS - REMARKS
    assert not unknown, f"conditions that are not understood: {unknown}"
    version = {"IPV4": 4, "IPV6": 6, "ANY": None, None: None}[raw.get("ipVersion")]
    return Rule(
        action={"next-tier": "pass", "pass": "pass"}.get(raw["action"].lower(), raw["action"].lower()),
        ip_version=version,  # type: ignore[arg-type]
        protocol=_protocol(raw.get("protocol")),
        not_protocol=_protocol(raw.get("notProtocol")),
        icmp=_icmp(raw, "icmpType"),
        not_icmp=_icmp(raw, "notIcmpType"),
        source=_end(raw, "src", "notSrc"),
        destination=_end(raw, "dst", "notDst"),
    )


def _end(raw: Raw, positive: str, negative: str) -> Match:
    def ports_of(prefix: str) -> tuple[GroupId, ...]:
        ids = (*raw.get(f"{prefix}NamedPortIpSetIds", ()), *raw.get(f"{prefix}IpPortSetIds", ()))
        return tuple(GroupId(f"p:{id_}") for id_ in ids)

    return Match(
        groups=tuple(map(GroupId, raw.get(f"{positive}IpSetIds", ()))),
        not_groups=tuple(map(GroupId, raw.get(f"{negative}IpSetIds", ()))),
        nets=tuple(raw.get(f"{positive}Net", ())),
        not_nets=tuple(raw.get(f"{negative}Net", ())),
        ports=_ranges(raw.get(f"{positive}Ports", ())),
        named_ports=ports_of(positive),
        not_ports=_ranges(raw.get(f"{negative}Ports", ())),
        not_named_ports=ports_of(negative),
    )


def _protocol(raw: Raw | None) -> int | None:
    if raw is None:
        return None
    return int(raw["number"]) if "number" in raw else PROTOCOLS[raw["name"].lower()]


def _icmp(raw: Raw, key: str) -> Icmp | None:
    if f"{key}Code" in raw:
        both = raw[f"{key}Code"]
        return Icmp(type=both.get("type", 0), code=both.get("code", 0))
    return Icmp(type=raw[key]) if key in raw else None


def _ranges(raw: Iterable[Raw]) -> tuple[PortRange, ...]:
    return tuple(PortRange(first=r.get("first", 0), last=r.get("last", 0)) for r in raw)


# --- sets


def _groups(case: Raw) -> Iterable[Fact]:
    """Each set under the name by which rules call it: as addresses, as addresses with ports, an empty one as both."""
    for id_, members in case["ip_sets"].items():
        if not any("," in member for member in members):
            nets = [ip_network(member, strict=False) for member in members]
            hosts = {net.network_address.packed for net in nets if net.prefixlen == net.max_prefixlen}
            wide = {
                net.network_address.packed + bytes((net.prefixlen,))
                for net in nets
                if net.prefixlen != net.max_prefixlen
            }
            yield Fact(
                GROUP,
                (id_, "0"),
                Group(of="addresses", v4=_of(hosts, 4), v6=_of(hosts, 16), nets4=_of(wide, 5), nets6=_of(wide, 17)),
            )
        if all("," in member for member in members):
            packed = {_port(member) for member in members}
            yield Fact(GROUP, (f"p:{id_}", "0"), Group(of="ports", v4=_of(packed, 8), v6=_of(packed, 20)))


def _of(members: Iterable[bytes], width: int) -> bytes:
    return b"".join(sorted(member for member in members if len(member) == width))


def _port(text: str) -> bytes:
    """`10.0.0.2/32,tcp:80`"""
    net, port = text.split(",")
    protocol, number = port.split(":")
    return ip_address(net.partition("/")[0]).packed + bytes((PROTOCOLS[protocol], 0)) + int(number).to_bytes(2, "big")
