"""`tortie policy diff` and `lint`, and the warnings of `apply`, against a running api."""

from __future__ import annotations

import json

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import NodeName
from bus_schemas.subjects import ENDPOINT
from tests.support.api import KUBERNETES_POLICY, NAMESPACE, NODE, POD
from tests.support.waiting import until
from tests.system.test_api_cli import Tortie, tortie  # noqa: F401

CLIENT = POD.replace("name: web", "name: client").replace("app: web", "app: client")
ONLY_WEB = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: only-web, namespace: develop}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}]}
"""
TYPO = ONLY_WEB.replace("port: http", "port: htpp").replace("only-web", "typo")


async def plugged(tortie: Tortie) -> None:  # noqa: F811
    await tortie("apply -f", tortie.file(NAMESPACE, NODE, POD, CLIENT))
    for name, address in (("web", "10.244.0.7"), ("client", "10.244.0.8")):
        endpoint = Endpoint(
            node=NodeName("node1"), namespace="develop", name=name, container="c", link="tor1", addresses=(address,)
        )
        await tortie.api.bus.put(ENDPOINT, ("node1", "develop", name), endpoint)
    await until(lambda: tortie.says("get pods -n develop", "10.244.0.8"), "the pods are known")


async def test_diff_before_and_after(tortie: Tortie) -> None:  # noqa: F811
    await plugged(tortie)
    file = tortie.file(ONLY_WEB, name="new.yaml")
    code, out, err = await tortie("policy diff -f", file)
    assert (code, err) == (1, "")
    assert out.startswith("allowed now, denied then:\n")
    assert "develop/client, outside 203.0.113.1 -> develop/web" not in out
    assert "-> develop/web  TCP but not TCP/80, UDP" in out
    assert "no rule of NetworkPolicy/develop/only-web matches" in out
    assert "compared: 2 pods in 2 classes" in out
    assert (await tortie("get knp -n develop"))[1] == "", "nothing is written"

    await tortie("apply -f", file)
    code, out, _ = await tortie("policy diff -f", file)
    assert code == 0
    assert out.startswith("no connection is allowed or denied that is not so now\n")
    code, out, _ = await tortie("policy diff --delete -o json -f", file)
    assert code == 1
    assert {change["kind"] for change in json.loads(out)["changes"]} == {"allowed then"}
    assert (await tortie("policy diff -f", tortie.file("kind: Nonsense", name="wrong.yaml")))[0] == 2
    assert (await tortie("policy diff"))[0] == 2


async def test_lint_of_a_file_and_of_the_cluster(tortie: Tortie) -> None:  # noqa: F811
    await plugged(tortie)
    file = tortie.file(TYPO, name="typo.yaml")
    said = "NetworkPolicy/develop/typo: spec.ingress[0].ports[0].port: none of the 1 pods that it selects has a TCP"
    code, out, _ = await tortie("policy lint -f", file)
    assert code == 1
    assert said in out
    assert await tortie("policy lint --offline -f", file) == (0, "nothing to remark\n", "")
    code, out, err = await tortie("apply -f", file)
    assert (code, out) == (0, "NetworkPolicy/develop/typo created\n")
    assert f"warning: {said}" in err
    code, out, _ = await tortie("policy lint -o json")
    assert (code, [finding["code"] for finding in json.loads(out)]) == (1, ["unknown-port"])
    await tortie("delete -f", file)
    await tortie("apply -f", tortie.file(KUBERNETES_POLICY))
    assert await tortie("policy lint") == (0, "nothing to remark\n", "")
