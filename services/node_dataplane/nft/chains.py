"""The chains of a rule group: tiers, their policies, their defaults.

    from_<h>   jump out_<policy>   jump out_<policy>   drop            one tier that ends in deny: the usual case
    from_<h>   jump from_<h>_0     jump out_<policy>   ...  accept     a tier with a `pass` is a chain of its own

A policy is a chain that every group which applies it jumps to, so a change of its rules rewrites one chain. The
exception is a policy that can pass: passing means to leave the tier, and nft can only return from the chain it stands
in; its rules are written into the tier's chain itself. (This is also the place where runs of rules that only allow can
be merged into one lookup, since all rules of a tier come together here.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bus_schemas.ids import RulesId
from bus_schemas.policy import Direction
from services.node_dataplane.nft.names import Way, policy_chain, tier_chain
from services.node_dataplane.nft.render import Rendered, comment


@dataclass(frozen=True)
class Chain:
    lines: tuple[str, ...]
    hook: str = ""
    """`type ... hook ... priority ...; policy ...;` of a base chain."""
    comment: str = ""


def endpoint_chains(
    name: str, way: Way, direction: Direction, policy: Callable[[RulesId], Rendered], *, undecided: str = ""
) -> dict[str, Chain]:
    """The chain `name` of a rule group and those of its tiers. `undecided` stands at the end in place of what the
    direction's default says."""
    chains: dict[str, Chain] = {}
    lines: list[str] = []
    for number, tier in enumerate(direction.tiers):
        body: list[str] = []
        passes = False
        for rules in tier.rules:
            rendered = policy(rules)
            passes = passes or rendered.passes
            body += rendered.lines if rendered.passes else [f"jump {policy_chain(way, rules)}"]
        if tier.default == "deny":
            body.append(f"counter drop {comment(f'end of tier {tier.tier}')}")
        if passes:
            chain = tier_chain(name, number)
            chains[chain] = Chain(tuple(body), comment=f"tier {tier.tier}")
            lines.append(f"jump {chain}")
        else:
            lines += body
            if tier.default == "deny":
                break
    else:
        default = "accept" if direction.default == "allow" else f"counter drop {comment('no profile allows it')}"
        lines.append(undecided or default)
    chains[name] = Chain(tuple(lines))
    return chains


def policy_chain_of(rendered: Rendered, policy: str) -> Chain:
    return Chain(rendered.lines, comment=policy)


UNKNOWN_POLICY = Rendered((f"counter drop {comment('policy not known yet')}",), False, (), frozenset())
"""What stands for a policy whose rules have not arrived."""
