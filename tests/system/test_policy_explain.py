"""`tortie policy explain` against a running api, on what a compiler has put on the bus."""

from __future__ import annotations

import json

import yaml

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName
from bus_schemas.manifests import Accepted, read
from bus_schemas.subjects import DESIRED, ENDPOINT, Fact
from services.policy_compiler.core import Core as Compiler
from tests.support.api import KUBERNETES_POLICY, NAMESPACE, NODE, POD, joined
from tests.support.compiled_policy import facts_of
from tests.support.waiting import until
from tests.system.test_api_cli import Tortie, tortie  # noqa: F401

CLIENT = POD.replace("name: web", "name: client").replace("app: web", "app: client")
POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: from-clients, namespace: develop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}], ports: [{port: http}]}]
"""


async def compile_for(tortie: Tortie, *documents: str) -> None:  # noqa: F811
    """What the policy compiler would do of these documents and two plugged in pods, with every direction shared."""
    compiler, bus = Compiler(longest_direction=0), tortie.api.bus
    for outcome in read(joined(*documents)):
        assert isinstance(outcome, Accepted)
        compiler.apply(Fact(DESIRED[type(outcome.resource)], outcome.resource.key, outcome.resource))
    for name, address in (("web", "10.244.0.7"), ("client", "10.244.0.8")):
        endpoint = Endpoint(
            node=NodeName("node1"), namespace="develop", name=name, container="c", link="tor1", addresses=(address,)
        )
        compiler.apply(Fact(ENDPOINT, ("node1", "develop", name), endpoint))
        await bus.put(ENDPOINT, ("node1", "develop", name), endpoint)
    for fact in facts_of(compiler.flush()):
        await bus.put(fact.family, fact.key, fact.value)


async def test_explain(tortie: Tortie) -> None:  # noqa: F811
    documents = (NAMESPACE, NODE, POD, CLIENT, POLICY, KUBERNETES_POLICY)
    await tortie("apply -f", tortie.file(*documents))
    await compile_for(tortie, *documents)
    await until(lambda: tortie.says("get pods -n develop", "10.244.0.8"), "the pods are known")

    code, out, err = await tortie("policy explain develop/client develop/web TCP/http")
    assert (code, err) == (0, "")
    assert out.startswith("ALLOWED  develop/client (10.244.0.8) -> develop/web (10.244.0.7) TCP/http: ")
    assert 'NetworkPolicy/develop/from-clients ingress[0]: allow TCP from `app == "client"` in namespace develop' in out

    code, out, _ = await tortie("policy explain develop/client develop/web TCP/81")
    assert code == 1
    assert out.startswith("DENIED  ")
    assert "destination port 81 is not http" in out
    assert "NetworkPolicy/develop/deny-all: it has no rules this way" in out

    code, out, _ = await tortie("policy explain 10.244.0.8 develop/web TCP/80 -o json")
    answer = json.loads(out)
    assert (code, answer["action"], answer["ingress"]["endpoint"]) == (0, "allow", "develop/web")
    _, out, _ = await tortie("policy explain 10.244.0.8 develop/web TCP/80 -o yaml")
    assert yaml.safe_load(out) == answer

    assert await tortie("policy explain develop/absent develop/web TCP/80") == (
        2,
        "",
        "tortie: there is no pod develop/absent\n",
    )
    status, answer = await tortie.api.get("/v1/explain?from=develop/web")
    assert (status, answer["error"]) == (400, "to and traffic must be given")
