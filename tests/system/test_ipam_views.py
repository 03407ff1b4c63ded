"""`tortie ipam` against a real api and a real ipam on a real bus."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Assigned, AssignRequest, Candidate, ServiceAddresses
from bus_schemas.subjects import ASSIGN, BLOCK, CANDIDATE, ENDPOINT, HANDLE, SERVICE_ADDRESSES
from chassis.errors import Unavailable
from tests.support.api import NODE, joined
from tests.support.api_server import Api, running
from tests.support.ipam_records import block, handle, with_address
from tests.support.nats import Nats
from tests.support.waiting import DEADLINE_S, until
from tortie.cli.main import main

NODE2 = NODE.replace("node1", "node2").replace("10.0.0.15", "10.0.0.16")
SMALL = """\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: small}
spec: {cidr: 10.9.0.0/27, blockSize: 28}
"""
RESERVATION = """\
apiVersion: projectcalico.org/v3
kind: IPReservation
metadata: {name: kept}
spec: {reservedCIDRs: [10.9.0.16/31]}
"""
SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: LoadBalancer, clusterIP: 10.96.0.7, ports: [{port: 80}]}
"""


RUN_IPAM = """
from chassis.runner import run
from services.ipam.service import serve
from services.ipam.settings import Settings
raise SystemExit(run("ipam", Settings, serve))
"""


@asynccontextmanager
async def ipam(url: str) -> AsyncIterator[None]:
    """A replica in a process of its own."""
    environ = {"TORTIE_NATS_URL": url, "TORTIE_INSTANCE": "ipam-test", "TORTIE_HEALTH_LISTEN": ""}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        RUN_IPAM,
        env=os.environ | environ,
        cwd=Path(__file__).parents[2],
        stdout=DEVNULL,
        stderr=DEVNULL,
    )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


class Tortie:
    """Runs the command as a person would, in a thread: `code, out, err`."""

    def __init__(self, api: Api, capsys: pytest.CaptureFixture[str], directory: Path) -> None:
        self.api = api
        self.directory = directory
        self._capsys = capsys

    async def __call__(self, line: str, *more: str) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = await asyncio.to_thread(main, [*line.split(), *more])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    async def says(self, line: str, *texts: str) -> bool:
        out = (await self(line))[1]
        return all(text in out for text in texts)

    async def apply(self, *documents: str) -> None:
        path = self.directory / "manifests.yaml"
        path.write_text(joined(*documents))
        code, _, err = await self("apply -f", str(path))
        assert code == 0, err

    async def assign(self, handle: str, node: str = "node1", **wishes: object) -> str:
        """One address, as an agent asks for it."""
        request = AssignRequest(node=NodeName(node), handle=HandleId(handle), families=(4,), **wishes)  # type: ignore[arg-type]
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    reply = await self.api.bus.request(ASSIGN, request, timeout_s=2.0)
                except Unavailable:
                    continue
                if isinstance(reply, Assigned):
                    return reply.addresses[0]
                await asyncio.sleep(0.05)

    async def plug(self, pod: str, address: str, node: str = "node1", handle: str = "") -> None:
        """The agent's word that a pod has the address."""
        endpoint = Endpoint(
            node=NodeName(node),
            namespace="default",
            name=pod,
            container="c",
            link="tor0",
            addresses=(address,),
            handle=HandleId(handle),
        )
        await self.api.bus.put(ENDPOINT, (node, "default", pod), endpoint)

    async def unplug(self, pod: str, node: str = "node1") -> None:
        await self.api.bus.delete(ENDPOINT, (node, "default", pod))


@pytest.fixture
async def tortie(
    nats: Nats, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Tortie]:
    async with running(nats.url, tmp_path) as api, ipam(nats.url):
        monkeypatch.setenv("TORTIE_API", api.address)
        made = Tortie(api, capsys, tmp_path)
        await made.apply(NODE, NODE2, SMALL)
        yield made


async def test_totals_blocks_and_borrowed(tortie: Tortie) -> None:
    await tortie.apply(RESERVATION)
    first = [await tortie.assign(f"cni.{i}", pod=f"p{i}", namespace="default") for i in range(3)]
    assert len(set(first)) == 3
    await until(lambda: tortie.says("ipam show", "3 (9%)"), "the addresses are counted")
    _, out, _ = await tortie("ipam show")
    assert out.splitlines() == [
        "GROUPING   CIDR          IPS TOTAL   IPS IN USE   IPS RESERVED   IPS FREE",
        "IP Pool    10.9.0.0/27   32          3 (9%)       2 (6%)         27 (84%)",
    ]
    _, out, _ = await tortie("ipam show --show-blocks")
    assert [line.split()[0] for line in out.splitlines()] == ["GROUPING", "IP", "Block"]
    assert out.splitlines()[2].endswith("node1")
    code, out, _ = await tortie("ipam show --show-blocks -o json")
    assert json.loads(out)["pools"][0]["blocks"][0]["inUse"] == 3
    code, out, err = await tortie("ipam show --show-borrowed")
    assert (code, out, err) == (0, "", "tortie: no address is borrowed\n")
    await tortie.assign("cni.far", node="node2", namespace="default", pod="far")
    for i in range(15):
        await tortie.assign(f"cni.more.{i}", namespace="default", pod=f"more{i}")
    await until(lambda: tortie.says("ipam show --show-borrowed", "BORROWING-NODE", "Pod"), "something is borrowed")
    assert "BLOCK OWNER" in (await tortie("ipam show --show-borrowed"))[1]


async def test_whose_an_address_is(tortie: Tortie) -> None:
    address = await tortie.assign("cni.1", namespace="default", pod="web")
    await tortie.plug("web", address, handle="cni.1")
    await until(lambda: tortie.says(f"ipam show --ip={address}", "pod default/web on node1"), "the pod is known")
    code, out, _ = await tortie(f"ipam show --ip={address}")
    lines = out.splitlines()
    assert lines[:6] == [
        f"IP {address} is in use",
        "Handle ID: cni.1",
        "Active Owner Attributes:",
        "  namespace: default",
        "  node: node1",
        "  pod: web",
    ]
    assert lines[-1] == "Used by: pod default/web on node1"
    assert (await tortie("ipam show --ip=192.0.2.1"))[1] == "IP 192.0.2.1 is not in use: not assigned (in no pool)\n"
    code, _, err = await tortie("ipam show --ip=nonsense")
    assert (code, "nonsense" in err) == (1, True)
    assert (await tortie("ipam show --ip=192.0.2.1 --show-blocks"))[0] == 2


async def test_a_sound_cluster_and_a_leaked_address(tortie: Tortie, tmp_path: Path) -> None:
    address = await tortie.assign("cni.1", namespace="default", pod="web")
    await tortie.plug("web", address, handle="cni.1")
    await until(lambda: tortie.says("ipam check", "found 0 problems"), "the records are sound")
    code, out, _ = await tortie("ipam check --show-all-ips")
    assert code == 0
    assert out.endswith("Check complete; found 0 problems.\n")
    assert any(line.startswith(address) and "in use" in line for line in out.splitlines())

    # an endpoint without an allocation, and one of another handle
    await tortie.plug("stray", "10.9.0.30", handle="cni.9")
    await until(lambda: tortie.says("ipam check", "found 1 problem."), "the stray is found")
    code, out, _ = await tortie("ipam check --show-problem-ips")
    assert code == 1
    assert "10.9.0.30 is used by pod default/stray on node1, and pool small may give it to somebody else" in out
    await tortie.unplug("stray")
    await until(lambda: tortie.says("ipam check", "found 0 problems"), "the stray is gone")


async def test_reports_release_what_they_saw_and_no_more(tortie: Tortie, tmp_path: Path) -> None:
    address = await tortie.assign("cni.1", namespace="default", pod="web")
    await tortie.plug("web", address, handle="cni.1")
    await until(lambda: tortie.says(f"ipam show --ip={address}", "Used by: pod"), "the pod is known")
    code, _, err = await tortie(f"ipam release --ip={address}")
    assert (code, "pod default/web on node1 says that it is in use" in err) == (1, True)

    report = tmp_path / "report.json"
    code, out, _ = await tortie("ipam check -o", str(report))
    assert (code, f"Report written to {report}." in out) == (0, True)
    told = json.loads(report.read_text())
    (row,) = told["addresses"]
    assert (told["kind"], told["version"], row["state"], row["handle"]) == ("IPAMReport", 1, "in use", "cni.1")

    # the pod goes without a word: long enough ago, that is a leak
    row["state"] = "leaked"
    report.write_text(json.dumps(told))
    assert (await tortie("ipam release --from-report", str(report)))[0] == 1
    await tortie.unplug("web")
    await until(lambda: tortie.says(f"ipam show --ip={address}", "nobody says so"), "the pod is gone")
    old = tmp_path / "old.json"
    old.write_text(json.dumps({**told, "addresses": [{**row, "sequence": row["sequence"] - 1}]}))
    code, out, _ = await tortie("ipam release --from-report", str(old))
    assert (code, "given anew since" in out) == (0, True)
    code, out, _ = await tortie("ipam release --from-report", str(report), "--from-report", str(old))
    assert out == "Released 0, left alone 0, failed 0.\n"
    code, out, _ = await tortie("ipam release --from-report", str(report))
    assert (code, out) == (0, f"Successfully released IP address {address}\nReleased 1, left alone 0, failed 0.\n")
    await until(lambda: tortie.says(f"ipam show --ip={address}", "is not in use"), "it is free")
    code, out, _ = await tortie(f"ipam release --ip={address}")
    assert (code, out) == (0, f"IP address {address} is left alone: it is not in use\n")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "is no report of `tortie ipam check`"),
        ("{}", "is no report of `tortie ipam check`"),
        ('{"kind": "IPAMReport", "version": 2}', "is a report of version 2; this command reads version 1"),
    ],
)
async def test_what_is_no_report(tortie: Tortie, tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "r.json").write_text(text)
    code, _, err = await tortie("ipam release --from-report", str(tmp_path / "r.json"))
    assert (code, complaint in err) == (2, True)


async def test_configuration_changes_field_by_field(tortie: Tortie) -> None:
    code, out, _ = await tortie("ipam configure --strictaffinity true --max-blocks-per-host=4")
    assert (code, out) == (0, "Successfully set StrictAffinity to: true\nSuccessfully set MaxBlocksPerHost to: 4\n")
    code, out, _ = await tortie("ipam configure --ip-cooldown-seconds=30 --auto-allocate-blocks=false -o json")
    assert (code, json.loads(out)["IPCooldownSeconds"]) == (0, "30")
    _, out, _ = await tortie("get ipamconfig default -o yaml")
    assert yaml.safe_load(out)["spec"] == {
        "strictAffinity": True,
        "autoAllocateBlocks": False,
        "maxBlocksPerHost": 4,
        "ipCooldownSeconds": 30,
    }
    _, out, _ = await tortie("ipam show --show-configuration -o json")
    assert json.loads(out) == {
        "strictAffinity": "true",
        "AutoAllocateBlocks": "false",
        "MaxBlocksPerHost": "4",
        "IPCooldownSeconds": "30",
    }
    assert (await tortie("ipam configure --strictaffinity=default"))[0] == 0
    _, out, _ = await tortie("get ipamconfiguration default -o yaml")
    assert "strictAffinity" not in yaml.safe_load(out)["spec"]
    assert (await tortie("ipam configure"))[0] == 2
    assert (await tortie("ipam configure --strictaffinity=maybe"))[0] == 2
    code, _, err = await tortie("ipam configure --max-blocks-per-host=99999999999")
    assert (code, "spec.maxBlocksPerHost: must be from 0 to 2147483647" in err) == (1, True)


async def test_a_pool_is_split_while_it_is_used(tortie: Tortie) -> None:
    address = await tortie.assign("cni.1", namespace="default", pod="web")
    await tortie.plug("web", address, handle="cni.1")
    code, out, _ = await tortie("ipam split 2 small --dry-run")
    assert (code, out.splitlines()[-1]) == (0, "IPPool/small deleted (dry run)")
    code, out, _ = await tortie("ipam split 2 --cidr=10.9.0.0/27")
    assert (code, out.splitlines()) == (
        0,
        ["IPPool/split-small-0 created", "IPPool/split-small-1 created", "IPPool/small deleted"],
    )
    assert (await tortie(f"ipam show --ip={address}"))[1].startswith(f"IP {address} is in use")
    again = await tortie.assign("cni.2", namespace="default", pod="other")
    await tortie.plug("other", again, handle="cni.2")
    await until(lambda: tortie.says("ipam check", "found 0 problems"), "the records are sound")
    code, _, err = await tortie("ipam split 2 split-small-0")
    assert (code, "it cannot be split into 2" in err) == (1, True)
    assert (await tortie("ipam split 2 absent"))[0] == 1
    assert (await tortie("ipam split 2"))[0] == 2


async def test_without_ipam_nothing_is_released(
    nats: Nats, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(nats.url, tmp_path) as api:
        monkeypatch.setenv("TORTIE_API", api.address)
        monkeypatch.setattr("services.api.ipam_http.RELEASE_TIMEOUT_S", 0.1)
        tortie = Tortie(api, capsys, tmp_path)
        await tortie.apply(SMALL)
        for family, key, message in (
            (BLOCK, "10.9.0.0/28", with_address(block("10.9.0.0/28", size=16), 1, "cni.1")),
            (HANDLE, "cni.1", handle("cni.1", "10.9.0.1")),
        ):
            await api.bus.put(family, (key,), message)
        await until(lambda: tortie.says("ipam show --ip=10.9.0.1", "is in use"), "the address is known")
        code, _, err = await tortie("ipam release --ip=10.9.0.1")
        assert (code, "address management does not answer" in err) == (2, True)


async def test_candidates(tortie: Tortie) -> None:
    assert (await tortie("ipam candidates"))[2].startswith("tortie: nothing looks forgotten\n")
    candidate = Candidate(
        handle=HandleId("cni.7"),
        node=NodeName("node1"),
        namespace="default",
        pod="web",
        addresses=("10.9.0.7",),
        reason="node1 does not list it",
        since=1.0,
        observations=2,
        due=901.0,
    )
    await tortie.api.bus.put(CANDIDATE, ("cni.7",), candidate)
    await until(lambda: tortie.says("ipam candidates -o json", "cni.7"), "the candidate is shown")
    _, out, _ = await tortie("ipam candidates")
    assert out.split()[:2] == ["IPS", "NODE"]
    assert out.splitlines()[1].split()[:3] == ["10.9.0.7", "node1", "default/web"]


async def test_services_show_their_addresses(tortie: Tortie) -> None:
    await tortie.apply(SERVICE)
    _, out, _ = await tortie("get svc")
    assert out.splitlines()[1].split() == ["web", "LoadBalancer", "10.96.0.7", "<pending>", "80/TCP"]
    given = ServiceAddresses(namespace="default", service="web", addresses=("203.0.113.9",))
    await tortie.api.bus.put(SERVICE_ADDRESSES, ("default", "web"), given)
    await until(lambda: tortie.says("get svc", "203.0.113.9"), "the address is shown")
    _, out, _ = await tortie("get svc web -o yaml")
    assert yaml.safe_load(out)["status"] == {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}


async def test_paths_are_listed(tortie: Tortie) -> None:
    _, index = await tortie.api.get("/")
    paths = {path["path"] for path in index["paths"]}
    assert {"/v1/ipam", "/v1/ipam/check", "/v1/ipam/release", "/v1/ipam/split", "/v1/ipam/candidates"} <= paths
    assert (await tortie.api.post("/v1/ipam/release", "nonsense"))[0] == 400
    assert (await tortie.api.post("/v1/ipam/split", '{"count": 2}'))[0] == 400
