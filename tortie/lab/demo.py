"""The guided tour of `tortie lab demo`: what a newcomer sees first.

    a cluster comes up -> addresses -> who reaches whom -> routes -> a policy is applied with `tortie apply -f` -> who
    reaches whom now, the changes marked -> what to type next

Nothing in it is special: every step is one that a person can take with the same commands.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.table import Table

from bus_schemas.ids import PodKey
from tortie.lab import checks, control, kernel, ownership, probes, samples
from tortie.lab.cluster import Cluster
from tortie.lab.errors import CannotDo
from tortie.lab.scenario import Place, Traffic

NODES = 3
PORT = 80
DEADLINE_S = 15.0
API = PodKey("shop", "api")
DATABASE = PodKey("shop", "db")

POLICY = """\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db-from-api, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: api}}}]
    ports: [{protocol: TCP, port: 80}]
"""

Reach = dict[tuple[PodKey, PodKey], bool]


class Tour:
    """Prints, and says how long each part took."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._last = self._began

    def part(self, title: str) -> None:
        """The heading of what was done since the last one."""
        now = time.monotonic()
        self._console.print(f"\n[bold green]✓[/] [bold]{title}[/] [dim]{now - self._last:.2f} s[/]", soft_wrap=True)
        self._last = now

    def show(self, *what: object) -> None:
        self._console.print(*what, soft_wrap=len(what) == 1 and isinstance(what[0], str))

    def resume(self) -> None:
        """What was shown since is no part of the next one's time."""
        self._last = time.monotonic()

    @property
    def total_s(self) -> float:
        return time.monotonic() - self._began


async def run(console: Console, lab: str) -> None:
    """The whole tour; nothing is left afterwards. Raises LabError."""
    wanted = samples.cluster(NODES)
    tour = Tour(console)
    with ownership.owned(lab) as directory:
        cluster = Cluster(lab, wanted.nodes, directory, network=wanted.network)
        try:
            with console.status("starting") as live:
                await cluster.up(wanted.resources, wanted.namespaces, wanted.pods, live.update)
            tour.part(f"a bus, four services, {NODES} nodes with an agent each, {len(cluster.pods)} pods by CNI")
            async with control.serve(cluster):
                await _look_around(tour, cluster)
            tour.resume()
        finally:
            with console.status("taking everything down"):
                await cluster.down()
    tour.part("everything is gone again: processes, namespaces, files")
    tour.show(f"[dim]{tour.total_s:.1f} s in all[/]")
    _next(tour)


async def _look_around(tour: Tour, cluster: Cluster) -> None:
    tour.show(_pods(cluster))
    tour.resume()
    before = await _settled(cluster, {}, "every pod reaches every other")
    tour.part(f"who reaches whom at TCP {PORT}: no policy, so everybody (every cell is a real connection)")
    tour.show(_matrix(before, before))
    first = next(iter(cluster.topology.nodes))
    tour.resume()
    rows = [row for row in await kernel.read("routes", cluster.netns(Place("node", first))) if _ours(row)]
    tour.part(f"the routes that {first} was given: to its own pods, and to the blocks of the other nodes")
    tour.show(_routes(rows))

    tour.show(Panel(Syntax(POLICY, "yaml", background_color="default"), title="policy.yaml", expand=False))
    tour.resume()
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "policy.yaml"
        file.write_text(POLICY)
        said = await checks.run_command(cluster, ["tortie", "apply", "-f", str(file)])
    tour.part("tortie apply -f policy.yaml")
    tour.show(f"  [dim]{said.strip()}[/]")
    tour.resume()
    closed = {pair: False for pair in before if pair[1] == DATABASE and pair[0] != API}
    after = await _settled(cluster, closed, "the policy is enforced")
    tour.part("who reaches whom now: the database answers the api alone")
    tour.show(_matrix(after, before))


async def _settled(cluster: Cluster, exceptions: Reach, what: str) -> Reach:
    """The reachability once everything is allowed but the exceptions. Raises CannotDo when it does not come to that."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                now = await reachability(cluster)
                if all(reached == exceptions.get(pair, True) for pair, reached in now.items()):
                    return now
    except TimeoutError:
        logs = cluster.directory / "log"
        raise CannotDo(f"it took more than {DEADLINE_S:g} s until {what}: the logs are in {logs}") from None


async def reachability(cluster: Cluster) -> Reach:
    """Every pod to every other, all at once."""
    pairs = [(a, b) for a in cluster.pods for b in cluster.pods if a != b]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(checks.ask(cluster, Traffic(_place(a), _place(b), "tcp", PORT))) for a, b in pairs]
    return {pair: isinstance(task.result(), probes.Answered) for pair, task in zip(pairs, tasks, strict=True)}


def _place(key: PodKey) -> Place:
    return Place("pod", str(key))


def _ours(row: kernel.Row) -> bool:
    """Not what the node had before: its default route and its subnet."""
    return row.get("dst") != "default" and row.get("protocol") != "kernel"


def _pods(cluster: Cluster) -> Table:
    table = _table("POD", "NODE", "ON", "ADDRESS", "LINK")
    for pod in cluster.pods.values():
        node = pod.spec.node
        table.add_row(str(pod.key), node, cluster.address(Place("node", node)), ", ".join(pod.addresses), pod.link)
    return table


def _routes(rows: Sequence[kernel.Row]) -> Table:
    table = _table("DESTINATION", "BY", "DEVICE")
    for row in rows:
        if row.get("type") == "blackhole":
            table.add_row(str(row["dst"]), "[dim]its own block: the rest is a blackhole[/]", "")
        else:
            table.add_row(str(row["dst"]), str(row.get("gateway", "the link")), str(row.get("dev", "")))
    return table


def _matrix(now: Reach, before: Reach) -> Table:
    """Rows are sources, columns destinations; what is not as before stands out."""
    pods = list(dict.fromkeys(source for source, _ in now))
    table = _table("FROM  \\  TO", *map(str, pods))
    for source in pods:
        cells = []
        for destination in pods:
            pair = (source, destination)
            if pair not in now:
                cells.append("[dim]·[/]")
            else:
                text = "[green]yes[/]" if now[pair] else "[red]no[/]"
                cells.append(text if now[pair] == before[pair] else f"[reverse]{text}[/]")
        table.add_row(str(source), *cells)
    return table


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, header_style="bold", pad_edge=False, padding=(0, 3, 0, 2))


def _next(tour: Tour) -> None:
    tour.show("\n[bold]Next[/] (as root; the command is .venv/bin/tortie where it is not installed)")
    for command, why in (
        ("tortie lab up", "the same cluster, to stay: it prints how to point `tortie` at it"),
        ("tortie lab probe other/client shop/db tcp/80", "one connection, and what came of it"),
        ("tortie lab exec shop/db -- ip route", "look inside any node or pod"),
        ("tortie lab run scenario.yaml", "a cluster, steps and expectations in one file"),
        ("tortie lab down", "and nothing is left of it"),
    ):
        tour.show(f"  {command:46} [dim]# {why}[/]")
