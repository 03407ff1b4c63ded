"""`tortie lab`: a whole cluster in network namespaces on this machine, to try, to test, to learn."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from tortie import netns
from tortie.cli.errors import Misused, Refused
from tortie.cli.options import pairs
from tortie.lab import control, elsewhere, keeper, ownership, report, requirements, runs
from tortie.lab import vm as machine
from tortie.lab.cluster import Cluster
from tortie.lab.engine import Result
from tortie.lab.errors import LabError
from tortie.lab.topology import node_netns, pod_netns, prefix

app = typer.Typer()

DEFAULT = "lab"
"""The name of a lab that nobody named."""

LabOption = Annotated[
    str,
    typer.Option("--lab", envvar="TORTIE_LAB", metavar="NAME", help="Which lab.", show_default="the one that is up"),
]
T = TypeVar("T")


@app.command()
def up(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="What to call it: up to 16 of a-z, 0-9.")] = DEFAULT,
    file: Annotated[
        Path | None, typer.Option("--filename", "-f", metavar="FILE", help="The cluster of this scenario.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", metavar="N", help="How many nodes, without a scenario.")] = 3,
) -> None:
    """Start a cluster that stays until `lab down`."""
    console = Console(highlight=False)

    async def ready() -> None:
        await requirements.check_machine()
        await _sweep()
        keeper.wanted(file, nodes)  # a fault in the file is told before anything starts

    _run(ready())
    try:
        with console.status(f"lab {name}") as live:
            took_s = keeper.start(name, file, nodes, lambda text: live.update(f"lab {name}: {text}"))
    except LabError as error:
        raise Refused(str(error)) from error
    console.print(f"[green]The lab [bold]{name}[/] is up[/] after {took_s:.1f} s.\n")
    _show(console, _run(control.request(name, do="status")))
    console.print("\n[bold]Next[/]")
    console.print(
        f"  export TORTIE_API={ownership.api_address(name)}    # then `tortie get`, `tortie apply -f` act on it"
    )
    console.print("  tortie lab probe NAMESPACE/POD NAMESPACE/POD tcp/80")
    console.print("  tortie lab exec NAMESPACE/POD -- ip route")
    console.print(f"  tortie lab down {name}")


@app.command()
def down(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME...]", help="Default: the one that is up.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every lab, and what dead ones left behind.")] = False,
) -> None:
    """End a lab and remove everything of it, also after a crash."""
    labs = ownership.labs() if everything else names or [_only(os.environ.get("TORTIE_LAB", ""))]
    for lab in labs:
        _run(keeper.end(lab))
        print(f"the lab {lab} is gone")


@app.command()
def status(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The same as --lab.", show_default=False)] = "",
    lab: LabOption = "",
) -> None:
    """Show the nodes, pods and processes of a lab."""
    labs = [name or lab] if name or lab else [name for name in ownership.labs() if ownership.owner(name)]
    if not labs:
        print("no lab is up: `tortie lab up` starts one")
    for name in labs:
        _show(Console(highlight=False), _run(control.request(name, do="status")))


@app.command()
def start(
    pod: Annotated[str, typer.Argument(metavar="NAMESPACE/POD", show_default=False)],
    node: Annotated[str, typer.Option("--node", metavar="NODE", help="Where it runs.", show_default=False)],
    labels: Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Repeatable.")] = None,
    annotations: Annotated[
        list[str] | None, typer.Option("--annotation", metavar="KEY=VALUE", help="Repeatable.")
    ] = None,
    listen: Annotated[
        list[str] | None, typer.Option("--listen", metavar="PROTO/PORT", help="A port that answers. Repeatable.")
    ] = None,
    lab: LabOption = "",
) -> None:
    """Start a pod: its resource, then CNI ADD as a container runtime calls it."""
    spec = {
        "node": node,
        "labels": pairs("--label", labels),
        "annotations": pairs("--annotation", annotations),
        "listen": listen or [],
    }
    addresses = _run(control.request(_only(lab), do="start", pod=pod, spec=spec))
    print(f"{pod} runs on {node} with {', '.join(addresses)}")


@app.command()
def stop(
    pods: Annotated[list[str], typer.Argument(metavar="NAMESPACE/POD...", show_default=False)], lab: LabOption = ""
) -> None:
    """Stop pods: CNI DEL, then the resource."""
    for pod in pods:
        addresses = _run(control.request(_only(lab), do="stop", pod=pod))
        print(f"{pod} is gone, it had {', '.join(addresses) or 'no address'}")


@app.command()
def kill(
    process: Annotated[str, typer.Argument(metavar="PROCESS", help="nats, ipam, agent-node1 ...", show_default=False)],
    lab: LabOption = "",
) -> None:
    """Kill a process of a lab (by SIGKILL), to see what happens; `revive` starts it again."""
    pid = _run(control.request(_only(lab), do="kill", process=process))
    print(f"{process} ({pid}) is killed: `tortie lab revive {process}` starts it again")


@app.command()
def revive(
    process: Annotated[str, typer.Argument(metavar="PROCESS", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="TORTIE_X=VALUE", help="A setting beside those of the lab. Repeatable."),
    ] = None,
    lab: LabOption = "",
) -> None:
    """Start a killed process again, with what it left."""
    pid = _run(control.request(_only(lab), do="revive", process=process, set=pairs("--set", settings)))
    print(f"{process} ({pid}) is started")


@app.command("exec", context_settings={"ignore_unknown_options": True})
def exec_(
    place: Annotated[str, typer.Argument(metavar="NODE|NAMESPACE/POD", show_default=False)],
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND...", show_default=False)],
    lab: LabOption = "",
) -> None:
    """Run a command inside a node or pod (or `router`, `outside`, `control`)."""
    name = _only(lab)
    namespace = _namespace(name, place)
    os.environ |= {"TORTIE_API": ownership.api_address(name), "TORTIE_LAB": name}
    sys.stdout.flush()
    os.execvp("ip", ["ip", "netns", "exec", namespace, *command])


@app.command()
def probe(
    source: Annotated[str, typer.Argument(metavar="FROM", help="NAMESPACE/POD or node:NAME", show_default=False)],
    destination: Annotated[str, typer.Argument(metavar="TO", help="The same, or ip:ADDRESS", show_default=False)],
    service: Annotated[str, typer.Argument(metavar="[PROTO/PORT]", help="tcp/80, udp/53, icmp")] = "icmp",
    lab: LabOption = "",
) -> None:
    """Send real packets and say whether an answer came. Exit code 1: none did."""
    answer = _run(control.request(_only(lab), do="probe", traffic=f"{source} -> {destination} {service}"))
    print(f"{source} -> {destination} {service}: {answer['text']}")
    if answer["outcome"] != "answered":
        raise typer.Exit(1)


@app.command("seen-from")
def seen_from(
    source: Annotated[str, typer.Argument(metavar="FROM", help="NAMESPACE/POD or node:NAME", show_default=False)],
    destination: Annotated[str, typer.Argument(metavar="TO", help="The same, or ip:ADDRESS", show_default=False)],
    lab: LabOption = "",
) -> None:
    """Print the address that the destination sees as the source."""
    print(_run(control.request(_only(lab), **{"do": "seen-from", "from": source, "to": destination})))


@app.command()
def run(
    paths: Annotated[list[Path], typer.Argument(metavar="FILE|DIRECTORY...", show_default=False)],
    parallel: Annotated[int, typer.Option("--parallel", "-j", metavar="N", help="How many at a time.")] = 1,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the last lab, or the first that fails, up.")] = False,
    patience: Annotated[
        float | None,
        typer.Option("--patience", metavar="S", help="Seconds for a step to take effect.", show_default="2; BGP: 20"),
    ] = None,
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write a JUnit report.")] = None,
    json_: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the results as JSON.")] = None,
) -> None:
    """Run scenarios on real kernel state, with real packets. Exit code 1: one failed."""
    if parallel < 1 or (keep and parallel > 1):
        raise Misused("--parallel is at least 1, and 1 with --keep")
    console = Console(highlight=False)
    began = time.monotonic()
    results = _run(_scenarios(console, paths, parallel, keep, patience))
    if len(results) > 1:
        report.summary(console, results, time.monotonic() - began)
    if junit is not None:
        report.write_junit(junit, results)
    if json_ is not None:
        report.write_json(json_, results)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command()
def demo() -> None:
    """A guided tour: three nodes, pods, a policy, and what it changes. Leaves nothing behind."""
    from tortie.lab import demo as tour

    async def whole() -> None:
        await requirements.check_machine()
        await _sweep()
        await tour.run(Console(highlight=False), f"demo{os.getpid()}")

    _run(whole())


@app.command(context_settings={"ignore_unknown_options": True})
def vm(words: Annotated[list[str], typer.Argument(metavar="COMMAND...", show_default=False)]) -> None:
    """Run a command in a small virtual machine: Debian's kernel over this machine's files. Its exit code is the
    command's."""

    async def whole() -> int:
        found = machine.find()
        with machine.shared_directory() as directory:
            return await machine.run(found, words, directory)

    raise typer.Exit(_run(whole()))


@app.command(hidden=True)
def keep(
    name: str,
    file: Annotated[Path | None, typer.Option("--filename", "-f")] = None,
    nodes: Annotated[int, typer.Option("--nodes")] = 3,
) -> None:
    """Own a lab in the foreground: what `lab up` starts in the background."""
    raise typer.Exit(_run(keeper.keep(name, keeper.wanted(file, nodes))))


# --- running scenarios


async def _scenarios(
    console: Console, paths: list[Path], parallel: int, keep: bool, patience_s: float | None
) -> list[Result]:
    await requirements.check_machine()
    await _sweep()
    files = runs.files(paths)
    slots = asyncio.Semaphore(parallel)

    async def one(number: int, path: Path) -> Result:
        async with slots:
            return await _scenario(console, path, f"run{os.getpid()}x{number}", patience_s, live=parallel == 1)

    if not keep:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(number, path)) for number, path in enumerate(files)]
        return [task.result() for task in tasks]
    results: list[Result] = []
    for number, path in enumerate(files):
        name = f"run{os.getpid()}x{number}"
        last = path == files[-1]

        async def hold(cluster: Cluster, failed: bool, last: bool = last) -> None:
            if failed or last:
                await _hold(console, cluster)

        results.append(await _scenario(console, path, name, patience_s, live=True, hold=hold))
        if not results[-1].passed:
            break
    return results


async def _scenario(
    console: Console, path: Path, lab: str, patience_s: float | None, *, live: bool, hold: runs.Held | None = None
) -> Result:
    """One scenario with its report; without `live` the report is printed in one piece at the end."""
    pieces = io.StringIO()
    shown = console if live else Console(highlight=False, file=pieces, force_terminal=console.is_terminal)
    report.heading(shown, path)
    progress = report.Progress(shown, path.stem, live=live)
    try:
        lacking = await elsewhere.lacks(path) if hold is None else []
        if lacking:
            progress.phase(f"in a virtual machine, as this kernel has no {', '.join(lacking)}")
            result = await elsewhere.run(path, lacking, patience_s=patience_s)
        else:
            result = await runs.run(path, lab, progress, patience_s=patience_s, hold=hold)
    finally:
        progress.close()
    report.outcome(shown, result, kept=hold is not None)
    console.file.write(pieces.getvalue())
    return result


async def _hold(console: Console, cluster: Cluster) -> None:
    """Until Ctrl-C, or `tortie lab down`."""
    console.print(f"  the lab [bold]{cluster.name}[/] stays up: Ctrl-C, or `tortie lab down {cluster.name}`, ends it")
    where = f"TORTIE_LAB={cluster.name} TORTIE_API={ownership.api_address(cluster.name)}"
    console.print(f"  export {where}", soft_wrap=True)
    await asyncio.Event().wait()


# --- which lab, and where in it


def _only(lab: str) -> str:
    """The lab that is meant: the named one, or the only one that is up."""
    if lab:
        return lab
    alive = [name for name in ownership.labs() if ownership.owner(name)]
    if len(alive) == 1:
        return alive[0]
    if alive:
        raise Misused(f"several labs are up ({', '.join(alive)}): name one")
    raise Refused("no lab is up: `tortie lab up` starts one")


def _namespace(lab: str, place: str) -> str:
    if "/" in place:
        candidate = pod_netns(lab, *place.split("/", 1))
    elif place in ("router", "outside", "control"):
        candidate = f"{prefix(lab)}-{place}"
    else:
        candidate = node_netns(lab, place)
    if not netns.exists(candidate):
        raise Refused(f"the lab {lab} has no {place!r}: `tortie lab status` shows what it has")
    return candidate


async def _sweep() -> None:
    """Removes what labs left behind whose owner was killed."""
    for lab in ownership.labs():
        if not ownership.owner(lab):
            await ownership.erase_ownerless(lab)


# --- showing and failing


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", pad_edge=False)


def _show(console: Console, status: dict[str, Any]) -> None:
    nodes = _table("NODE", "ADDRESS", "AGENT", "NAMESPACE")
    for node in status["nodes"]:
        nodes.add_row(node["name"], node["address"], "runs" if node["agent"] else "-", node["netns"])
    pods = _table("POD", "NODE", "ADDRESS", "LISTENS", "LINK")
    for column in pods.columns:
        column.overflow = "fold"
    for pod in status["pods"]:
        addresses, listens = ", ".join(pod["addresses"]), " ".join(pod["listens"]) or "-"
        pods.add_row(pod["name"], pod["node"], addresses, listens, pod["link"])
    console.print(nodes, "", pods, "", sep="\n")
    for process in status["processes"]:
        fate = f"  [red]{process['fate']}[/]" if process["fate"] else ""
        console.print(f"[dim]{process['pid']:>7}  {process['name']:20} {process['log']}[/]{fate}", soft_wrap=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs to the end; SIGTERM ends it as Ctrl-C does, with everything cleaned up."""

    async def stoppable() -> T:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(stoppable())
    except LabError as error:
        raise Refused(str(error)) from error
    except (KeyboardInterrupt, asyncio.CancelledError):
        _interrupted()


def _interrupted() -> NoReturn:
    print("interrupted: everything is cleaned up", file=sys.stderr)
    raise typer.Exit(130)
