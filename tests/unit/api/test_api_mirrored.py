"""What Kubernetes has the word about is not changed here while a bridge is alive."""

from __future__ import annotations

import msgspec
import pytest

from bus_schemas.manifests import read
from bus_schemas.resources import IPPool
from bus_schemas.resources.metadata import MIRRORED_FROM
from bus_schemas.status import Status
from bus_schemas.subjects import DESIRED, STATUS, Fact
from services.api.core import Core
from services.api.requests import Apply, Delete, Planned, Refused, Request, Split, Stamp
from tests.support.api import POOL
from tests.support.manifests import accepted

NAME = "default-ipv4-ippool"
CHANGED = Apply(read(POOL.replace("natOutgoing: true", "natOutgoing: false")))
REQUESTS = [CHANGED, Delete([(IPPool, ("", NAME))]), Split(NAME, 2)]


def core(*, mirrored: bool, bridge: bool) -> Core:
    made = Core()
    pool = accepted(POOL)
    annotations = {MIRRORED_FROM: "u"} if mirrored else {}
    metadata = msgspec.structs.replace(pool.metadata, annotations=annotations)
    made.apply(Fact(DESIRED[IPPool], ("", NAME), msgspec.structs.replace(pool, metadata=metadata), 7))
    if bridge:
        status = Status(component="kube_bridge", instance="one", started=0, ready=True)
        made.apply(Fact(STATUS, ("kube_bridge", "one"), status, 8))
    return made


@pytest.mark.parametrize("request_", REQUESTS, ids=["change", "delete", "split"])
@pytest.mark.parametrize(("mirrored", "bridge"), [(True, True), (True, False), (False, True)])
def test_what_is_mirrored_is_changed_in_kubernetes(request_: Request, mirrored: bool, bridge: bool) -> None:
    decision = core(mirrored=mirrored, bridge=bridge).decide(request_, Stamp("now", iter("abcdef")))
    if mirrored and bridge:
        assert decision == Refused(
            "conflict", f"IPPool/{NAME} is mirrored from Kubernetes: change it there, with kubectl"
        )
    else:
        assert isinstance(decision, Planned)
        assert decision.writes
