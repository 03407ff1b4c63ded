"""What a service account gives its pods, in whatever order one hears of either."""

from __future__ import annotations

from itertools import permutations

import pytest

from services.policy_compiler.core import Core
from services.policy_compiler.groups import SegmentKey
from services.policy_compiler.selection import identity
from tests.support.policy_worlds import account, endpoint, manifests, namespace, pod

ROBOTS = 'pcsa.kind == "robot"'
POLICY = """
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: p}
spec: {ingress: [{action: Allow, source: {serviceAccounts: {selector: kind == 'robot'}}}]}
"""
SECOND = bytes((10, 0, 0, 2))


CHANGES = (pod("red/b", account="y"), account("red", "x", kind="person"), account("red", "y", kind="robot"))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("at_once", [True, False])
def test_a_pod_changes_its_account_while_the_accounts_change(order: tuple[int, ...], at_once: bool) -> None:
    core = Core()
    pods = (pod("red/a", account="x"), pod("red/b", account="x"))
    accounts = (account("red", "x", kind="robot"), account("red", "y", kind="person"))
    plugged = (endpoint("red/a", "10.0.0.1"), endpoint("red/b", "10.0.0.2"))
    for fact in (namespace("red"), *pods, *accounts, *plugged, *manifests(POLICY)):
        core.apply(fact)
    assert len(told(core)) == 8
    members = b""
    for at in order:
        core.apply(CHANGES[at])
        if not at_once:
            members = told(core, members)
    assert told(core, members) == SECOND


def told(core: Core, before: bytes = b"") -> bytes:
    """The robots' addresses as they are told; those before where nothing is."""
    group = core.flush().groups.get(SegmentKey(identity(ROBOTS), 0))
    return before if group is None else group.v4
