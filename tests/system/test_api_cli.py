"""The tortie command against a running api on a real bus."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import BlockCidr, HandleId, NodeName
from bus_schemas.ipam import Allocation, Block, Handle
from bus_schemas.subjects import BLOCK, ENDPOINT, HANDLE
from tests.support.api import CALICO_POLICY, KUBERNETES_POLICY, NAMESPACE, NODE, POD, POOL, joined
from tests.support.api_server import Api, running
from tests.support.nats import Nats
from tests.support.waiting import until
from tortie.cli.main import main


class Tortie:
    """Runs the command as a person would, in a thread: `code, out, err`."""

    def __init__(self, api: Api, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self.api = api
        self._capsys = capsys
        self._directory = directory

    async def __call__(self, line: str, *more: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, [*line.split(), *more])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    async def says(self, line: str, text: str) -> bool:
        return text in (await self(line))[1]

    def file(self, *documents: str, name: str = "manifests.yaml") -> str:
        path = self._directory / name
        path.write_text(joined(*documents))
        return str(path)


@pytest.fixture
async def tortie(
    nats: Nats, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Tortie]:
    async with running(nats.url, tmp_path) as api:
        monkeypatch.setenv("TORTIE_API", api.address)
        yield Tortie(api, capsys, tmp_path)


async def test_apply_get_delete(tortie: Tortie) -> None:
    file = tortie.file(NAMESPACE, POD, POOL)
    assert await tortie("apply -f", file) == (
        0,
        "Namespace/develop created\nPod/develop/web created\nIPPool/default-ipv4-ippool created\n",
        "",
    )
    assert (await tortie("apply -f", file))[1].count("unchanged") == 3
    code, out, _ = await tortie("get ippools")
    assert code == 0
    assert out == "NAME                  CIDR            SELECTOR\ndefault-ipv4-ippool   10.244.0.0/16   all()\n"
    assert (await tortie("get pods -n develop"))[1].splitlines()[1].startswith("web")
    assert (await tortie("get pods")) == (0, "", "nothing found\n")
    assert (await tortie("get pods -A"))[1].split()[:2] == ["NAMESPACE", "NAME"]
    code, out, err = await tortie("delete namespace develop")
    assert (code, out) == (0, "Namespace/develop deleted\n")
    assert err.startswith("warning: Namespace/develop: ")
    assert await tortie("delete pod/develop/web") == (0, "Pod/develop/web deleted\n", "")


async def test_applying_by_tcp(tortie: Tortie) -> None:
    assert (await tortie("apply --api", tortie.api.tcp, "-f", tortie.file(NODE)))[0] == 0
    assert "node1" in (await tortie("get nodes --api", tortie.api.tcp))[1]


async def test_faults_are_named_with_file_and_line(tortie: Tortie, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    tortie.file(NODE, name="d/a.yaml")
    wrong = tortie.file(NAMESPACE, POOL.replace("26", "99"), name="d/b.yaml")
    code, out, err = await tortie("apply -f", str(tmp_path / "d"))
    assert (code, out) == (1, "")
    head, fault = err.splitlines()
    assert head == "tortie: 1 of 3 documents cannot be accepted: nothing was changed"
    assert fault.strip().startswith(f"{wrong}:5: IPPool/default-ipv4-ippool: spec.blockSize: ")
    assert (await tortie("get nodes"))[2] == "nothing found\n"


async def test_a_dry_run_changes_nothing(tortie: Tortie) -> None:
    assert (await tortie("apply --dry-run -f", tortie.file(NODE)))[1] == "Node/node1 created (dry run)\n"
    assert (await tortie("get node node1"))[0] == 1


async def test_what_is_not_there_is_1(tortie: Tortie) -> None:
    assert await tortie("get ippool absent") == (1, "", "tortie: IPPool/absent does not exist\n")
    assert await tortie("delete ippool absent") == (1, "", "tortie: IPPool/absent does not exist\n")
    assert await tortie("delete ippool absent --ignore-not-found") == (0, "", "")
    assert (await tortie("delete ippols absent --ignore-not-found"))[0] == 1
    code, _, err = await tortie("get deployments")
    assert code == 1
    assert "there is no kind 'deployments'" in err


@pytest.mark.parametrize("report", ["endpoints", "ipam", "status"])
async def test_a_report_is_no_kind(tortie: Tortie, report: str) -> None:
    code, _, err = await tortie(f"get {report} -A")
    assert code == 2
    assert f"{report}: no kind of object" in err


async def test_delete_by_manifest(tortie: Tortie) -> None:
    file = tortie.file(CALICO_POLICY, KUBERNETES_POLICY)
    await tortie("apply -f", file)
    assert (await tortie("delete NetworkPolicy/develop/deny-all"))[0] == 0
    code, out, err = await tortie("delete -f", file)
    assert (code, out) == (1, "NetworkPolicy/develop/allow-web deleted\n")
    assert "not found" in err
    assert "NetworkPolicy/develop/deny-all" in err
    assert await tortie("delete --ignore-not-found -f", file) == (0, "", "")


async def test_yaml_can_be_applied_again(tortie: Tortie, tmp_path: Path) -> None:
    await tortie("apply -f", tortie.file(POOL, NODE))
    _, out, _ = await tortie("get ippool default-ipv4-ippool -o yaml")
    assert all(text in out for text in ("blockSize: 26", "natOutgoing: true", "cidr: 10.244.0.0/16"))
    (tmp_path / "again.yaml").write_text(out)
    assert "unchanged" in (await tortie("apply -f", str(tmp_path / "again.yaml")))[1]
    _, out, _ = await tortie("get ippools,nodes -o yaml")
    (tmp_path / "list.yaml").write_text(out)
    assert [item["kind"] for item in yaml.safe_load(out)["items"]] == ["IPPool", "Node"]
    assert (await tortie("apply -f", str(tmp_path / "list.yaml")))[1].count("unchanged") == 2
    _, out, _ = await tortie("get nodes -o json")
    assert json.loads(out)["items"][0]["metadata"]["name"] == "node1"


async def test_pods_show_where_they_are(tortie: Tortie) -> None:
    await tortie("apply -f", tortie.file(POD))
    endpoint = Endpoint(
        node=NodeName("node1"), namespace="develop", name="web", container="c", link="tor1", addresses=("10.244.0.7",)
    )
    await tortie.api.bus.put(ENDPOINT, ("node1", "develop", "web"), endpoint)
    await until(lambda: tortie.says("get pods -n develop", "10.244.0.7"), "the pod has an address")
    _, out, _ = await tortie("get pods -n develop")
    assert out.splitlines()[1].split() == ["web", "node1", "10.244.0.7"]


async def test_ipam_show(tortie: Tortie) -> None:
    await tortie("apply -f", tortie.file(POOL))
    allocation = Allocation(ordinal=5, handle=HandleId("cni.1"), sequence=1)
    block = Block(
        cidr=BlockCidr("10.244.0.64/26"),
        pool="default-ipv4-ippool",
        node=NodeName("node1"),
        allocations=(allocation,),
    )
    handle = Handle(handle=HandleId("cni.1"), node=NodeName("node1"), namespace="default", pod="a")
    await tortie.api.bus.put(HANDLE, ("cni.1",), handle)
    await tortie.api.bus.put(BLOCK, (block.cidr,), block)
    await until(lambda: tortie.says("ipam show", "1 (0%)"), "the address is counted")
    _, out, _ = await tortie("ipam show")
    for word in ("GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE", "IP Pool", "10.244.0.0/16", "65536"):
        assert word in out
    assert "10.244.0.64/26" not in out
    _, out, _ = await tortie("ipam show --show-blocks")
    assert "Block" in out
    assert "10.244.0.64/26" in out
    assert "1 (2%)" in out
    _, out, _ = await tortie("ipam show --show-configuration")
    assert all(word in out for word in ("PROPERTY", "strictAffinity", "AutoAllocateBlocks", "MaxBlocksPerHost"))
    _, out, _ = await tortie("ipam show --ip=10.244.0.69")
    assert out.startswith("IP 10.244.0.69 is in use\nHandle ID: cni.1\nActive Owner Attributes:\n")
    _, out, _ = await tortie("ipam show --ip=10.244.0.70")
    assert out == (
        "IP 10.244.0.70 is not in use: not assigned (block 10.244.0.64/26 of node node1, pool default-ipv4-ippool)\n"
    )
    code, _, err = await tortie("ipam show --ip=nonsense")
    assert code == 1
    assert "nonsense" in err


async def test_status_is_1_while_a_node_has_no_agent(tortie: Tortie) -> None:
    await tortie("apply -f", tortie.file(NODE))
    code, out, _ = await tortie("status")
    assert code == 1
    assert "nothing is heard of its agent" in out
