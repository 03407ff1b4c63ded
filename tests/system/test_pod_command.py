"""`tortie pod` on a plain machine: pods come, run, and go, and leave nothing behind, whatever dies meanwhile."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import netns
from tests.support.machine import Machine
from tests.support.netns import namespaces
from tests.support.runtimes import NODE, OUTSIDE, Host

pytestmark = [pytest.mark.root, pytest.mark.lab]

FOREVER = ("--", "sleep", "infinity")


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """One node with Tortie, as docs/runtimes.md sets it up."""
    with namespaces(2) as (node, outside), Machine(node) as machine:
        netns.veth(node, "up0", outside, "node1", addresses=(f"{NODE}/24", f"{OUTSIDE}/24"))
        node.ip("route", "add", "default", "via", OUTSIDE)
        made = Host(machine, outside, tmp_path_factory.mktemp("logs"))
        made.serve()
        yield made


@pytest.fixture(autouse=True)
def _nothing_remains(host: Host) -> Iterator[None]:
    yield
    host.machine.run("tortie", "pod", "rm", "--all", "--time", "0", "--node", "node1")
    assert host.endpoints() == {}
    assert host.machine.run("ip", "netns").strip() == ""
    assert host.machine.run("tortie", "get", "pods", "-o", "json").count('"Pod"') == 0


def pod(host: Host, *words: str) -> str:
    return host.machine.run("tortie", "pod", *words, env={"TORTIE_NODE": "node1"})


def refused(host: Host, *words: str, code: int = 1, env: dict[str, str] | None = None) -> str:
    done = host.machine.try_("tortie", "pod", *words, env={"TORTIE_NODE": "node1", **(env or {})})
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stderr


def address(host: Host, name: str) -> str:
    return pod(host, "ip", name).strip()


def agent(host: Host) -> int:
    """Its process."""
    (found,) = host.machine.run("sh", "-c", "grep -lsz '^node-dataplane$' /proc/[0-9]*/cmdline; true").split()
    return int(found.split("/")[2])


def test_in_the_foreground_it_is_the_command(host: Host) -> None:
    done = host.machine.try_(
        *("tortie", "pod", "run", "once", "--node", "node1", "--label", "app=once", "--port", "http=tcp/80"),
        *("--", "sh", "-c", "cat; ip -4 -o addr show eth0; exit 7"),
        text="said on stdin\n",
    )
    assert done.returncode == 7
    assert done.stdout.startswith("said on stdin\n")
    assert "inet 10.244." in done.stdout
    assert done.stderr.startswith("tortie: default/once runs on node1 with 10.244.")


def test_the_resource_is_what_policies_and_people_see(host: Host) -> None:
    pod(host, "run", "-d", "web", "-l", "app=web", "-l", "tier=front", "-p", "http=tcp/80", *FOREVER)
    (manifest,) = json.loads(host.machine.run("tortie", "get", "pods", "-o", "json"))["items"]
    assert manifest["metadata"]["labels"] == {"app": "web", "tier": "front"}
    assert manifest["spec"]["nodeName"] == "node1"
    assert manifest["spec"]["containers"][0]["ports"][0]["name"] == "http"
    assert host.endpoints()["default/web"] == (address(host, "web"),)


def test_in_the_background_it_stays_and_tells_how_it_ended(host: Host) -> None:
    said = pod(host, "run", "-d", "job", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert said == f"default/job runs on node1 with {address(host, 'job')}\n"
    host.until(lambda: "exited (3)" in pod(host, "ls"), "the command ends")
    assert pod(host, "logs", "job") == "out\nerr\n"
    assert pod(host, "logs", "-f", "job") == "out\nerr\n"
    assert pod(host, "rm", "job") == "default/job is gone\n"
    assert "no pod default/job" in refused(host, "rm", "job")
    assert pod(host, "rm", "--ignore-not-found", "job") == ""


def test_a_command_that_cannot_be_run(host: Host) -> None:
    assert "No such file" in refused(host, "run", "x", "--", "/nowhere")
    assert pod(host, "ls").count("\n") == 1
    pod(host, "run", "-d", "y", "--", "/nowhere")
    host.until(lambda: "exited (127)" in pod(host, "ls"), "that is noted")
    assert "cannot run /nowhere" in pod(host, "logs", "y")


def test_an_address_can_be_asked_for_and_is_refused_with_the_reason(host: Host) -> None:
    pod(host, "run", "fixed", "--ip", "10.244.200.9")
    assert address(host, "fixed") == "10.244.200.9"
    assert "10.244.200.9" in refused(host, "run", "second", "--ip", "10.244.200.9")
    assert "192.0.2.1" in refused(host, "run", "second", "--ip", "192.0.2.1")
    assert "is not an address" in refused(host, "run", "second", "--ip", "10.244", code=2)
    assert "second" not in pod(host, "ls")
    assert "second" not in host.machine.run("tortie", "get", "pods")
    pod(host, "rm", "fixed")
    host.until(lambda: not _taken(host, "10.244.200.9"), "the address is free again")


def _taken(host: Host, address: str) -> bool:
    return "not in use" not in host.machine.run("tortie", "ipam", "show", "--ip", address)


def test_a_name_is_taken_once(host: Host) -> None:
    pod(host, "run", "one")
    assert "there is a pod default/one on this node already" in refused(host, "run", "one")
    host.apply("apiVersion: v1\nkind: Pod\nmetadata: {name: elsewhere, namespace: default}\nspec: {nodeName: node9}\n")
    assert "there is a pod default/elsewhere already, on node9" in refused(host, "run", "elsewhere")
    assert "node9" in host.machine.run("tortie", "get", "pods"), "it is not ours to delete"
    host.machine.run("tortie", "delete", "pod/elsewhere")


def test_what_is_missing_is_named(host: Host) -> None:
    assert "there is no Namespace/nowhere" in refused(host, "run", "x", "-n", "nowhere")
    absent = refused(host, "run", "x", "--wait", "0", "--socket", "/run/none.sock", code=2)
    assert "no agent listens on /run/none.sock" in absent
    assert "there is no Node/other" in refused(host, "run", "x", "--wait", "0", "--node", "other", code=2)
    assert "no api at" in refused(host, "run", "x", "--wait", "0", env={"TORTIE_API": "http://127.0.0.1:1"}, code=2)
    assert "--label is written KEY=VALUE" in refused(host, "run", "x", "--label", "app", code=2)
    assert "a port is written tcp/<number>" in refused(host, "run", "x", "--port", "http=80", code=2)
    assert "-d runs a command" in refused(host, "run", "x", "-d", code=2)
    assert pod(host, "ls").count("\n") == 1


def test_a_pod_has_no_more_privileges_than_a_container(host: Host) -> None:
    pod(host, "run", "weak")
    for command in ("nsenter --net=/proc/1/ns/net true", "ip link set eth0 down", "nft list ruleset"):
        done = host.machine.try_("tortie", "pod", "exec", "weak", "--", *command.split())
        assert done.returncode != 0, command
        assert re.search("not permitted|Permission denied|must be root", done.stderr), done.stderr
    shown = host.machine.run("tortie", "pod", "exec", "weak", "--", "env", env={"TORTIE_NATS_URL": "nats://x"})
    assert "TORTIE_" not in shown


def test_stop_keeps_the_pod_and_spares_nobody(host: Host) -> None:
    pod(host, "run", "-d", "deaf", "--", "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    was = address(host, "deaf")
    pod(host, "stop", "deaf", "--time", "0.2")
    assert "running" not in pod(host, "ls")
    assert host.endpoints()["default/deaf"] == (was,)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_foreground_command_and_the_pod(host: Host, number: signal.Signals) -> None:
    process = host.machine.popen(
        *("tortie", "pod", "run", "long", "--node", "node1", "--", "sh", "-c", "echo begun; exec sleep 1000")
    )
    host.until(lambda: "running" in pod(host, "ls"), "it runs")
    host.machine.run("sh", "-c", f"kill -{number.value} $(pgrep -f 'tortie pod run lon[g]')")
    assert process.communicate(timeout=60)[0].endswith("begun\n")
    assert process.wait() % 256 in (128 + number, -number % 256)
    assert "long" not in pod(host, "ls")


def test_pods_outlive_the_one_who_started_them_and_the_agent(host: Host, tmp_path: Path) -> None:
    pod(host, "run", "-d", "web", "--", "python", "-m", "http.server", "80")
    url = f"http://{address(host, 'web')}/"
    fetch = ("curl", "-sf", "-m", "5", "-o", "/dev/null", url)
    host.until(lambda: host.machine.try_(*fetch).returncode == 0, "it serves")
    host.machine.run("kill", "-9", str(agent(host)))
    assert host.machine.try_(*fetch).returncode == 0
    assert "running" in pod(host, "ls")
    said = refused(host, "rm", "web", "--time", "0")
    assert "its address is not released yet, so repeat this: the tortie agent does not listen" in said
    host.machine.start(*("tortie", "serve", "node-dataplane"), log=tmp_path / "agent.log", env={"TORTIE_NODE": "node1"})
    host.until(lambda: host.machine.try_("tortie", "pod", "rm", "web", "--node", "node1").returncode == 0, "repeated")
    assert host.endpoints() == {}


def test_what_ended_with_the_node_is_collected(host: Host) -> None:
    """As when a node is a container that starts anew: its namespaces, and what is under /run, are gone."""
    pod(host, "run", "-d", "lost", *FOREVER)
    pod(host, "run", "-d", "kept", *FOREVER)
    lost, kept = address(host, "lost"), address(host, "kept")
    namespace = next(row["netns"] for row in json.loads(pod(host, "ls", "-o", "json")) if row["name"] == "lost")
    host.machine.shell(
        f"kill -9 $(ip netns pids {namespace}); ip netns delete {namespace}; rm -r /run/tortie/pods/*lost"
    )
    assert pod(host, "gc") == "default/lost is gone\n"
    host.until(lambda: not _taken(host, lost), "its address is free")
    assert host.endpoints() == {"default/kept": (kept,)}
    assert pod(host, "gc") == ""
    assert "found 0 problems" in host.machine.run("tortie", "ipam", "check")


def test_a_name_that_an_earlier_life_left_can_be_used_at_once(host: Host) -> None:
    pod(host, "run", "again")
    namespace = json.loads(pod(host, "ls", "-o", "json"))[0]["netns"]
    host.machine.shell(f"ip netns delete {namespace}; rm -r /run/tortie/pods/*again")
    pod(host, "run", "again")
    assert len(host.endpoints()) == 1


def test_a_start_that_is_killed_half_way_can_be_removed(host: Host) -> None:
    pod(host, "run", "half")
    record = "/run/tortie/pods/default..half/pod.json"
    halved = json.loads(host.machine.run("cat", record)) | {"addresses": []}
    host.machine.write(record, json.dumps(halved))
    assert "default/half is gone" in pod(host, "rm", "half")
