"""Profiles that are made of namespaces and service accounts."""

from __future__ import annotations

from bus_schemas.manifests import to_manifest
from bus_schemas.policy import PolicyStatus
from bus_schemas.resources import Metadata, Namespace, Profile, ServiceAccount
from bus_schemas.resources.policy_scopes import ALLOW_ALL
from bus_schemas.subjects import DESIRED, POLICY_STATUS, Fact
from services.api.core import Core
from services.api.requests import Delete, Refused, Stamp

SPACE = Namespace(metadata=Metadata(name="shop", labels={"team": "blue"}))
ACCOUNT = ServiceAccount(metadata=Metadata(namespace="shop", name="robot.x", labels={"role": "ci"}))
OWN = Profile(metadata=Metadata(name="mine"))


def core() -> Core:
    made = Core()
    for sequence, resource in enumerate((SPACE, ACCOUNT, OWN), 1):
        made.apply(Fact(DESIRED[type(resource)], resource.key, resource, sequence))
    return made


def test_they_are_listed_with_those_that_people_write() -> None:
    assert [(s.resource.metadata.name, s.sequence) for s in core().resources(Profile)] == [
        ("kns.shop", 1),
        ("ksa.shop.robot.x", 2),
        ("mine", 3),
    ]


def test_they_show_what_they_mean() -> None:
    of_space, of_account = (core().resource(Profile, ("", name)) for name in ("kns.shop", "ksa.shop.robot.x"))
    assert of_space is not None
    assert of_account is not None
    assert to_manifest(of_space.resource)["spec"] == {
        "ingress": [{"action": "Allow"}],
        "egress": [{"action": "Allow"}],
        "labelsToApply": {"pcns.team": "blue", "pcns.projectcalico.org/name": "shop"},
    }
    assert isinstance(of_space.resource, Profile)
    assert of_space.resource.spec.ingress == ALLOW_ALL.ingress
    assert to_manifest(of_account.resource)["spec"] == {
        "labelsToApply": {"pcsa.role": "ci", "pcsa.projectcalico.org/name": "robot.x"}
    }


def test_they_come_and_go_with_what_they_are_made_of() -> None:
    made = core()
    assert list(made.shown(Fact(DESIRED[Namespace], ("", "shop"), None))) == [
        (Namespace, ("", "shop")),
        (Profile, ("", "kns.shop")),
    ]
    made.apply(Fact(DESIRED[Namespace], ("", "shop"), None))
    assert made.resource(Profile, ("", "kns.shop")) is None
    assert made.resource(Profile, ("", "kns.other")) is None
    assert made.resource(Profile, ("", "ksa.nonsense")) is None


def test_nobody_deletes_them() -> None:
    decision = core().decide(Delete([(Profile, ("", "kns.shop"))]), Stamp("", iter(())))
    assert decision == Refused(
        "conflict", "Profile/kns.shop is made of Namespace/shop, and goes with it: it cannot be deleted by itself"
    )


def test_a_policys_status_is_shown_with_it() -> None:
    made = core()
    status = PolicyStatus(policy="Profile/mine", faults=("spec: no",))
    fact = Fact(POLICY_STATUS, ("profile", "", "mine"), status)
    assert list(made.shown(fact)) == [(Profile, ("", "mine"))]
    before = made.said_of(OWN)
    made.apply(fact)
    assert made.said_of(OWN) != before
