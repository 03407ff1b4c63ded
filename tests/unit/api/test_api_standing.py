"""What every cluster has, and what cannot be deleted."""

from __future__ import annotations

import pytest

from bus_schemas.manifests import Accepted, read, read_object, to_manifest
from bus_schemas.resources import NetworkPolicy, Profile, Tier
from services.api.kinds import Kind
from services.api.requests import Delete, Planned, Refused
from services.api.standing import STANDING
from tests.support.api import Bench

TIER = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: security}, spec: {order: 100}}\n"
DEFAULT_TIER = "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: default}}\n"
DEFAULT_ALLOW = (
    "{apiVersion: projectcalico.org/v3, kind: Profile, metadata: {name: projectcalico-default-allow}, "
    "spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}}\n"
)
POLICY = (
    "{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: a, namespace: shop}, "
    "spec: {tier: security}}\n"
)


@pytest.mark.parametrize("resource", STANDING, ids=lambda resource: resource.display)
def test_what_every_cluster_has_is_a_manifest_like_any_other(resource: Tier | Profile) -> None:
    assert read_object(to_manifest(resource)) == Accepted(resource, (), 0)


@pytest.mark.parametrize(("kind", "name"), [(Tier, "default"), (Profile, "projectcalico-default-allow")])
def test_it_cannot_be_deleted(kind: Kind, name: str) -> None:
    bench = Bench(DEFAULT_TIER if kind is Tier else DEFAULT_ALLOW)
    decision = bench.do(Delete([(kind, ("", name))]))
    assert isinstance(decision, Refused)
    assert decision.error == f"{kind.KIND}/{name} is part of every cluster and cannot be deleted"


def test_a_profile_that_allows_everything_allows_everything() -> None:
    (outcome,) = read(DEFAULT_ALLOW.replace("egress: [{action: Allow}]", "egress: [{action: Deny}]"))
    assert not isinstance(outcome, Accepted)


def test_a_tier_with_policies_stays() -> None:
    bench = Bench(TIER, POLICY)
    decision = bench.do(Delete([(Tier, ("", "security"))]))
    assert isinstance(decision, Refused)
    assert decision.reason == "conflict"
    assert "Tier/security still holds NetworkPolicy/shop/a" in decision.error


def test_a_tier_goes_together_with_its_policies() -> None:
    bench = Bench(TIER, POLICY)
    decision = bench.do(Delete([(Tier, ("", "security")), (NetworkPolicy, ("shop", "a"))]))
    assert isinstance(decision, Planned)
    assert [write.kind for write in decision.writes] == [NetworkPolicy, Tier]
