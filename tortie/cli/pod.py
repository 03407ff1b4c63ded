"""`tortie pod`: pods of this node without Kubernetes or a container runtime. A pod is a network namespace with an
address, routes and policy as any other pod has them; its files are the node's."""

from __future__ import annotations

import os
import signal
import socket as sockets
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn, TypeVar

import typer

from bus_schemas.ids import PodKey
from tortie import netns
from tortie.cli.client import Client
from tortie.cli.errors import CommandError, Misused, Refused, Unreachable
from tortie.cli.options import Api, pairs
from tortie.cli.output import Format, Output, note, print_as
from tortie.cli.tables import render
from tortie.cni.plugin import SOCKET
from tortie.pods import manifest, processes
from tortie.pods.errors import PodError
from tortie.pods.manifest import Port
from tortie.pods.records import LOG, Record, Records
from tortie.pods.runtime import Runtime, Wanted

app = typer.Typer()
T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False)]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", show_default=False)]
Command = Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND...]", show_default=False)]
Namespace = Annotated[str, typer.Option("--namespace", "-n", metavar="NS", help="The pod's namespace.")]
Grace = Annotated[
    float, typer.Option("--time", "-t", metavar="S", help="Seconds from SIGTERM to SIGKILL of what runs in it.")
]
Node = Annotated[
    str,
    typer.Option(
        "--node", envvar="TORTIE_NODE", metavar="NODE", help="This node's name.", show_default="the host name"
    ),
]
Socket = Annotated[
    Path,
    typer.Option(
        "--socket", envvar="TORTIE_CNI_SOCKET", metavar="PATH", help="Where this node's agent listens for its pods."
    ),
]
_ASK_EVERY_S = 0.25
_FOLLOW_EVERY_S = 0.1
GRACE_S = 10.0
PATIENCE_S = 20.0
"""For the api: a bus of several servers that loses one has elected other leaders by then."""


@app.command()
def run(
    name: Name,
    command: Command = None,
    namespace: Namespace = "default",
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="What policies select it by.")
    ] = None,
    annotation: Annotated[
        list[str] | None, typer.Option("--annotation", metavar="KEY=VALUE", help="Repeatable.")
    ] = None,
    ip: Annotated[
        list[str] | None, typer.Option("--ip", metavar="ADDRESS", help="This address; one of each family at most.")
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option("--port", "-p", metavar="NAME=PROTO/N", help="A port that policies may name: http=tcp/80."),
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="In the background: see `logs`, and `rm` when it is done.")
    ] = False,
    wait: Annotated[float, typer.Option("--wait", metavar="S", help="Seconds for the node to become ready.")] = 120.0,
    node: Node = "",
    socket: Socket = Path(SOCKET),
    api: Api = "",
) -> None:
    """Start a pod on this node, and COMMAND in it: in the foreground, and the pod is removed when the command ends; its
    exit code is the command's. With -d in the background, and the pod stays until `rm`. Without a COMMAND the pod is
    only there: use `exec`."""
    wanted = Wanted(
        key=PodKey(namespace, name),
        labels=pairs("--label", label),
        annotations=pairs("--annotation", annotation),
        addresses=[_address(text) for text in ip or ()],
        ports={key: _port(text) for key, text in pairs("--port", port).items()},
        command=command or (),
    )
    if detach and not command:
        raise Misused("-d runs a command in the background, and there is none: tortie pod run -d NAME -- COMMAND...")
    runtime = _runtime(node, socket, api)
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGHUP, _interrupted)
    try:
        _until_ready(runtime, wait)
        if not runtime.has_namespace(namespace):
            raise Refused(f"there is no Namespace/{namespace}, and pods of none are closed: apply it first")
        record = _do(lambda: runtime.start(wanted, detach=detach))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    addresses = ", ".join(record.addresses)
    if detach or not command:
        print(f"{wanted.key} runs on {runtime.node} with {addresses}")
        return
    note(f"{wanted.key} runs on {runtime.node} with {addresses}")
    try:
        code = _attend(_do(lambda: processes.attached(record.netns, command)))
    finally:
        _do(lambda: runtime.remove(wanted.key, grace_s=GRACE_S))
    raise typer.Exit(code)


@app.command("ls")
def ls(output: Format = Output.TABLE) -> None:
    """Show the pods of this node, those of `tortie pod run`. (`tortie get pods -A` shows all pods of all nodes.)"""
    records = Records()
    found = _do(records.all)
    if print_as([_view(records, record) for record in found], output):
        return
    rows = [
        (
            record.namespace,
            record.name,
            _state(records, record),
            ",".join(record.addresses) or "-",
            ",".join(f"{key}={value}" for key, value in record.labels.items()) or "-",
            " ".join(record.command) or "-",
        )
        for record in found
    ]
    print(render(("NAMESPACE", "NAME", "STATE", "ADDRESS", "LABELS", "COMMAND"), rows))


@app.command()
def ip(name: Name, namespace: Namespace = "default") -> None:
    """Print a pod's addresses, one a line."""
    for address in _do(lambda: Records().get(PodKey(namespace, name))).addresses:
        print(address)


@app.command("exec")
def exec_(name: Name, command: Command = None, namespace: Namespace = "default") -> None:
    """Run a command inside a pod."""
    if not command:
        raise Misused("which command? tortie pod exec NAME -- COMMAND...")
    record = _do(lambda: Records().get(PodKey(namespace, name)))
    if not netns.exists(record.netns):
        raise Refused(f"the namespace of {record.key} is gone: `tortie pod rm` removes what is left of it")
    _do(lambda: processes.become(record.netns, command))


@app.command()
def logs(
    name: Name,
    namespace: Namespace = "default",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the command ends.")] = False,
) -> None:
    """Print what a detached command wrote."""
    records, key = Records(), PodKey(namespace, name)
    record = _do(lambda: records.get(key))
    path = records.path(key) / LOG
    if not path.exists():
        raise Refused(f"{key} has no log: its command runs in the foreground of whoever started it, or there is none")
    with path.open("rb") as file:
        while True:
            ended = not follow or not processes.running(record.netns)
            while data := file.read(1 << 16):
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            if ended:
                return
            time.sleep(_FOLLOW_EVERY_S)


@app.command()
def stop(name: Name, namespace: Namespace = "default", grace: Grace = GRACE_S) -> None:
    """End what runs in a pod. The pod stays, and so does its address, until `rm`."""
    runtime = _runtime("", Path(SOCKET), "")
    _do(lambda: runtime.stop(PodKey(namespace, name), grace_s=grace))
    print(f"{namespace}/{name} is stopped")


@app.command()
def rm(
    names: Names = None,
    namespace: Namespace = "default",
    everything: Annotated[bool, typer.Option("--all", help="Every pod of this node, in every namespace.")] = False,
    ignore_not_found: Annotated[bool, typer.Option("--ignore-not-found", help="An absent pod is no error.")] = False,
    grace: Grace = GRACE_S,
    node: Node = "",
    socket: Socket = Path(SOCKET),
    api: Api = "",
) -> None:
    """End what runs in pods, remove them and release their addresses."""
    if bool(names) == everything:
        raise Misused("which pod? Give names, or --all")
    runtime = _runtime(node, socket, api)
    absent = set()
    keys = [PodKey(namespace, name) for name in names or ()]
    if everything:
        keys = [record.key for record in _do(runtime.records.all)]
    elif ignore_not_found:
        absent = set(keys) - {record.key for record in _do(runtime.records.all)}
    for key in keys:
        if key not in absent:
            _do(lambda key=key: runtime.remove(key, grace_s=grace))  # type: ignore[misc]
            print(f"{key} is gone")


@app.command()
def gc(
    wait: Annotated[float, typer.Option("--wait", metavar="S", help="Seconds for the node to become ready.")] = 0.0,
    node: Node = "",
    socket: Socket = Path(SOCKET),
    api: Api = "",
) -> None:
    """Release what is left of pods that ended with this node: their addresses and their Pod resources. Run it when the
    node has started."""
    runtime = _runtime(node, socket, api)
    deadline = time.monotonic() + wait
    _until_ready(runtime, wait)
    while True:
        try:
            gone = _do(runtime.collect)
            break
        except CommandError as error:
            if time.monotonic() > deadline:
                raise
            note(f"{error}; trying again")
            time.sleep(1.0)
    for key in gone:
        print(f"{key} is gone")


# --- waiting


def _until_ready(runtime: Runtime, wait_s: float) -> None:
    """Returns when pods can be started; says once what is waited for. Raises Unreachable with it at the deadline."""
    deadline = time.monotonic() + wait_s
    said = ""
    while True:
        try:
            obstacle = runtime.ready()
        except Unreachable as error:
            obstacle = str(error)
        if not obstacle:
            return
        if time.monotonic() > deadline:
            raise Unreachable(obstacle)
        if obstacle != said:
            note(f"waiting: {obstacle}")
            said = obstacle
        time.sleep(_ASK_EVERY_S)


def _attend(child: subprocess.Popen[bytes]) -> int:
    """Waits for the command, passes signals on; the exit code as a shell has it. What a terminal sends, it sends to
    the command itself."""

    def pass_on(number: int, _: FrameType | None) -> None:
        if not (number == signal.SIGINT and sys.stdin.isatty()):
            with suppress(ProcessLookupError):
                child.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, pass_on)
    code = child.wait()
    return code if code >= 0 else 128 - code


def _interrupted(_: int, __: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


# --- words


def _runtime(node: str, socket: Path, api: str) -> Runtime:
    if os.geteuid() != 0:
        raise Misused("pods are network namespaces, which need root: run it again as root")
    return Runtime(node or sockets.gethostname(), Client(api, patience_s=PATIENCE_S), socket)


def _do(work: Callable[[], T]) -> T:
    try:
        return work()
    except PodError as error:
        raise Refused(str(error)) from error


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        raise Misused(f"--ip: {text!r} is not an address") from None


def _port(text: str) -> Port:
    try:
        return manifest.port(text)
    except ValueError as error:
        raise Misused(f"--port: {error}") from None


def _state(records: Records, record: Record) -> str:
    if not netns.exists(record.netns):
        return "gone" if record.addresses else "starting"
    if processes.running(record.netns, record.waiter):
        return "running"
    code = records.exit_code(record.key)
    return "idle" if code is None else f"exited ({code})"


def _view(records: Records, record: Record) -> dict[str, object]:
    return {
        "namespace": record.namespace,
        "name": record.name,
        "state": _state(records, record),
        "addresses": list(record.addresses),
        "labels": record.labels,
        "command": list(record.command),
        "netns": record.netns,
        "started": record.started,
    }
