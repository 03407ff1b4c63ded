"""A lab from `up` to `down` as a person has it, and what is left when its owner is killed: nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import POOL, lab_name
from tests.support.waiting import eventually
from tortie import netns
from tortie.lab import ownership, processes, requirements
from tortie.lab.errors import LabBusy, MachineLacks
from tortie.lab.topology import prefix

pytestmark = [pytest.mark.root, pytest.mark.lab]

SCENARIO = f"""\
name: two pods
nodes: {{n1: {{address: 10.0.0.15/24}}, n2: {{address: 10.0.0.16/24}}}}
resources: |
{"".join(f"  {line}" for line in POOL.splitlines(keepends=True))}
pods:
  default/a: {{node: n1, listen: [tcp/80]}}
  default/b: {{node: n2}}
steps:
  - do: expect what is not so
    expect: {{deny: [default/b -> default/a tcp/80]}}
"""


def tortie(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        processes.tortie_command(*arguments),
        env=processes.clean_environment() | {"NO_COLOR": "1", "COLUMNS": "200"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def ok(*arguments: str, **environment: str) -> str:
    done = tortie(*arguments, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def traces(lab: str) -> list[str]:
    """Whatever is there of a lab: namespaces, files, processes."""
    found = netns.named(prefix(lab))
    found += [str(path) for path in (ownership.directory(lab), ownership.ROOT / f"{lab}.lock") if path.exists()]
    mark = f"unix:{ownership.directory(lab)}/".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        try:
            found += [str(environment)] if mark in environment.read_bytes() else []
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            pass  # it has just ended, or is hidden from root and so no child of a lab
    return found


@pytest.fixture
def lab() -> Iterator[str]:
    name = lab_name()
    yield name
    tortie("lab", "down", name)
    assert traces(name) == []


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two-pods.yaml"
    path.write_text(SCENARIO)
    return path


def test_a_lab_from_up_to_down(lab: str, file: Path) -> None:
    assert f"The lab {lab} is up" in ok("lab", "up", lab, "-f", str(file))
    status = ok("lab", "status", "--lab", lab)
    assert "default/a" in status
    assert "agent-n2" in status

    assert "answered" in ok("lab", "probe", "--lab", lab, "default/b", "default/a", "tcp/80")
    refused = tortie("lab", "probe", "--lab", lab, "default/b", "default/a", "tcp/81")
    assert (refused.returncode, "refused" in refused.stdout) == (1, True)
    unknown = tortie("lab", "probe", "--lab", lab, "default/b", "default/nobody")
    assert unknown.stderr == "tortie: there is no pod default/nobody now\n"

    assert ok("lab", "seen-from", "default/a", "ip:203.0.113.7", TORTIE_LAB=lab) == "10.0.0.15\n"
    assert "169.254.1.1" in ok("lab", "exec", "--lab", lab, "default/a", "--", "ip", "route")
    assert "10.0.0.16/24" in ok("lab", "exec", "--lab", lab, "n2", "--", "ip", "-br", "addr")
    assert "n1" in ok("get", "nodes", TORTIE_API=ownership.api_address(lab))

    status = ok("lab", "status", lab)
    assert "default/a" in status

    again = tortie("lab", "up", lab, "-f", str(file))
    assert again.returncode == 1
    assert f"`tortie lab down {lab}` ends it" in again.stderr

    assert ok("lab", "down", lab) == f"the lab {lab} is gone\n"
    assert traces(lab) == []
    assert tortie("lab", "down", lab).returncode == 1


def test_pods_come_and_go_and_processes_die_in_a_lab_that_is_up(lab: str, file: Path) -> None:
    ok("lab", "up", lab, "-f", str(file))
    told = ok("lab", "start", "--lab", lab, "shop/c", "--node", "n2", "--label", "app=c", "--listen", "tcp/80")
    assert "shop/c runs on n2 with 10." in told
    assert "answered" in ok("lab", "probe", "--lab", lab, "default/a", "shop/c", "tcp/80")
    twice = tortie("lab", "start", "--lab", lab, "shop/c", "--node", "n2")
    assert (twice.returncode, "`tortie lab stop shop/c` ends it" in twice.stderr) == (1, True)
    nowhere = tortie("lab", "start", "--lab", lab, "shop/d", "--node", "n9")
    assert (nowhere.returncode, nowhere.stderr) == (1, "tortie: there is no node n9\n")
    unfit = ("lab", "start", "--lab", lab, "shop/d", "--node", "n1", "--annotation")
    refused = tortie(*unfit, 'cni.projectcalico.org/ipv4pools=["none"]')
    assert (refused.returncode, "CNI ADD of shop/d on n1" in refused.stderr) == (1, True), refused.stderr
    assert "shop/d" not in ok("lab", "status", lab)
    assert tortie(*unfit, "cni.projectcalico.org/ipv4pools").returncode == 2
    assert "shop/c is gone, it had 10." in ok("lab", "stop", "--lab", lab, "shop/c")

    assert "`tortie lab revive ipam` starts it again" in ok("lab", "kill", "--lab", lab, "ipam")
    assert "ipam" in ok("lab", "revive", "--lab", lab, "ipam", "--set", "TORTIE_LEAK_GRACE_S=5")
    assert "`tortie lab kill ipam` first" in tortie("lab", "revive", "--lab", lab, "ipam").stderr
    assert "there is no process bird here" in tortie("lab", "kill", "--lab", lab, "bird").stderr


def test_a_failing_scenario_says_so_and_is_gone(file: Path) -> None:
    before = set(ownership.labs())
    done = tortie("lab", "run", str(file))
    assert done.returncode == 1
    for part in ("deny default/b -> default/a tcp/80", "no answer at all: dropped", "answered after", "look at"):
        assert part in done.stdout
    assert set(ownership.labs()) <= before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_cleans_up(file: Path, number: signal.Signals) -> None:
    runner = await _runner(file)
    lab = await eventually(lambda: next((x for x in ownership.labs() if ownership.owner(x) == runner.pid), ""))
    await eventually(lambda: (ownership.directory(lab) / "api.sock").exists())
    runner.send_signal(number)
    assert await runner.wait() == 130
    assert traces(lab) == []


async def test_a_killed_owner_takes_its_processes_with_it_and_down_removes_the_rest(file: Path) -> None:
    runner = await _runner(file)
    lab = await eventually(lambda: next((x for x in ownership.labs() if ownership.owner(x) == runner.pid), ""))
    await eventually(lambda: (ownership.directory(lab) / "api.sock").exists())
    runner.kill()
    await runner.wait()
    await eventually(lambda: not [trace for trace in traces(lab) if trace.startswith("/proc")])
    assert netns.named(prefix(lab))
    assert ok("lab", "down", lab) == f"the lab {lab} is gone\n"
    assert traces(lab) == []


async def _runner(file: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *processes.tortie_command("lab", "run", str(file)),
        env=processes.clean_environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )


def test_one_owner_at_a_time() -> None:
    lab = lab_name()
    with ownership.owned(lab):
        assert ownership.owner(lab) == os.getpid()
        with pytest.raises(LabBusy, match=str(os.getpid())), ownership.owned(lab):
            pass
    assert ownership.owner(lab) is None
    assert lab not in ownership.labs()


async def test_what_lives_is_not_swept_away() -> None:
    lab = lab_name()
    with ownership.owned(lab):
        assert not await ownership.erase_ownerless(lab)


async def test_who_is_not_root_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(MachineLacks, match="needs root: run it again with sudo"):
        await requirements.check_machine()


def test_a_machine_without_nft_is_told_what_to_install(file: Path, tmp_path: Path) -> None:
    (tmp_path / "ip").symlink_to("/bin/true")
    (tmp_path / "bridge").symlink_to("/bin/true")
    done = tortie("lab", "run", str(file), PATH=str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == "tortie: a lab needs the packages nftables: on Debian or Ubuntu, apt-get install nftables\n"


def test_the_demo_ends_well_and_leaves_nothing() -> None:
    before = set(ownership.labs())
    text = ok("lab", "demo")
    for part in ("tortie apply -f policy.yaml", "NetworkPolicy/shop/db-from-api created", "everything is gone again"):
        assert part in text
    assert set(ownership.labs()) <= before
