"""What a node found out about itself, in the words of `bus_schemas.node_facts`. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bus_schemas.ids import NodeName
from bus_schemas.node_facts import AddressFact, CandidateFact, MtuFact, MtuTerm, NodeFacts, OffloadFact, Verdict
from services.node_dataplane.autodetection import Candidate
from services.node_dataplane.mtu import PodMtu, Underlay
from services.node_dataplane.own_address import Finding, worth_telling


def node_facts(
    node: NodeName,
    findings: Mapping[int, Finding],
    under: Underlay,
    pods: PodMtu,
    offload: Iterable[OffloadFact],
    configured: Mapping[str, str],
    *,
    cni_mtu: int = 0,
) -> NodeFacts:
    """Without a time: whoever tells it says since when it is so."""
    return NodeFacts(
        node=node,
        time=0.0,
        addresses=tuple(_address(finding) for _, finding in sorted(findings.items())),
        mtu=MtuFact(
            pods=pods.mtu,
            uplink=under.how,
            terms=tuple(MtuTerm(what=term.what, mtu=term.mtu, how=term.how) for term in pods.terms),
            problems=pods.problems,
            cni=cni_mtu,
        ),
        offload=tuple(offload),
        configured=dict(configured),
    )


def _address(finding: Finding) -> AddressFact:
    uplink = finding.uplink
    told, more = worth_telling(finding.candidates)
    candidates = [_candidate(candidate, finding) for candidate in told]
    if more:
        rest = CandidateFact(device=f"{more} more", verdict="skipped", reason="have no address of the family")
        candidates.append(rest)
    return AddressFact(
        family=finding.asked.family,
        address=str(uplink.network) if uplink is not None else "",
        device=uplink.device if uplink is not None else "",
        mtu=uplink.mtu if uplink is not None else 0,
        since=finding.since,
        method=finding.asked.words,
        source=finding.asked.by,
        problem=finding.problem,
        candidates=tuple(candidates),
    )


def _candidate(candidate: Candidate, finding: Finding) -> CandidateFact:
    chosen = candidate.uplink is not None and candidate.uplink == finding.uplink
    verdict: Verdict = "chosen" if chosen else "possible" if candidate.uplink is not None else "skipped"
    return CandidateFact(
        device=candidate.device,
        address=str(candidate.network) if candidate.network is not None else "",
        verdict=verdict,
        reason=finding.reason if chosen else candidate.reason,
    )
