"""Starts, removes and collects pods on this node, in the order that keeps every crash recoverable.

    start     record -> Pod resource -> namespace -> CNI ADD -> command
    remove    command -> CNI DEL -> Pod resource -> namespace -> record
    collect   what the agent holds for pods without a record, by CNI GC; what the api has of them

The record is there before anything else and goes last, so a pod that was cut short can always be removed. Removing may
be repeated until it is done. Collecting is evidence, not suspicion: nobody but this node starts its pods, their records
live exactly as long as their namespaces, and nothing is started meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import msgspec

from bus_schemas.ids import PodKey
from tortie import netns
from tortie.cli.client import Client, Json, object_path
from tortie.cli.errors import CommandError, Refused
from tortie.pods import manifest, plugging, processes
from tortie.pods.errors import CannotRun, NameTaken, PluginFailed, PodError
from tortie.pods.manifest import Port
from tortie.pods.plugging import Attachment
from tortie.pods.records import EXIT, LOG, Record, Records

NETWORK = "tortie-pod"
"""Of the CNI configuration: the pods of a container runtime on the same node are of another."""
STARTED_BY = "tortie.io/started-by"
"""Annotation of the Pod resources that are ours to delete."""
US = "tortie-pod-run"
IP_ADDRS = "cni.projectcalico.org/ipAddrs"
_CONFLICT = (409, 412)


@dataclass(frozen=True)
class Wanted:
    key: PodKey
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    addresses: Sequence[str] = ()
    """Asked for; empty: any."""
    ports: Mapping[str, Port] = field(default_factory=dict)
    command: Sequence[str] = ()

    @property
    def all_annotations(self) -> dict[str, str]:
        asked = {IP_ADDRS: json.dumps(list(self.addresses))} if self.addresses else {}
        return {**self.annotations, **asked, STARTED_BY: US}


class Runtime:
    def __init__(self, node: str, client: Client, socket: Path, records: Records | None = None) -> None:
        self.node = node
        self.records = records or Records()
        self._client = client
        self._socket = socket

    # --- start

    def start(self, wanted: Wanted, *, detach: bool = False) -> Record:
        """The pod is plugged in and its policy in the kernel; with `detach` its command runs. One that cannot be
        leaves nothing behind. Raises PodError, CommandError."""
        key = wanted.key
        record = Record(
            namespace=key.namespace,
            name=key.name,
            container=uuid4().hex,
            uid=str(uuid4()),
            netns=f"pod-{key.namespace}..{key.name}"[:200] + f"-{uuid4().hex[:8]}",
            started=time.time(),
            labels=dict(wanted.labels),
            command=tuple(wanted.command),
        )
        with self.records.claimed(record):
            try:
                self._register(record, wanted)
                _ip("netns", "add", record.netns)
                plugged = asyncio.run(plugging.add(self._attachment(record)))
                record = msgspec.structs.replace(record, addresses=plugged.addresses)
                self.records.write(record)
                if detach and wanted.command:
                    where = self.records.path(key)
                    waiter = processes.detached(record.netns, wanted.command, where / LOG, where / EXIT)
                    record = msgspec.structs.replace(record, waiter=waiter)
                    self.records.write(record)
            except BaseException as error:
                try:
                    self._dismantle(record, grace_s=0.0)
                except (PodError, CommandError) as another:
                    raise PodError(
                        f"{error}\n  and what there was of it remains, see `tortie pod rm`: {another}"
                    ) from error
                raise
        return record

    def _register(self, record: Record, wanted: Wanted) -> None:
        """The Pod resource, which must not exist. One of an earlier life of this node is no obstacle."""
        document = manifest.pod(
            record.key,
            uid=record.uid,
            node=self.node,
            labels=wanted.labels,
            annotations=wanted.all_annotations,
            ports=wanted.ports,
        )
        path = object_path("pod", record.name, record.namespace)
        for last in (False, True):
            try:
                self._client.put(path, json.dumps(document), headers={"If-None-Match": "*"})
            except Refused as refused:
                if refused.status not in _CONFLICT:
                    raise
                there = self._there(record.key)
                if there is None:
                    continue
                if last or not self._ours(there):
                    node = there["spec"].get("nodeName") or "no node"
                    raise NameTaken(f"there is a pod {record.key} already, on {node}") from refused
                self._unregister(record.key, str(there["metadata"].get("uid", "")))
            else:
                return
        raise NameTaken(f"somebody else starts and removes pods {record.key} at the same time")

    # --- remove

    def remove(self, key: PodKey, *, grace_s: float) -> None:
        """The pod ends and its address is released. Raises NoSuchPod, PodError, CommandError: repeat it then."""
        with self.records.held(key) as record:
            self._dismantle(record, grace_s)

    def stop(self, key: PodKey, *, grace_s: float) -> None:
        """What runs in the pod ends; the pod and its address stay. Raises NoSuchPod, PodError."""
        with self.records.held(key) as record:
            self._end(record, grace_s)

    def _dismantle(self, record: Record, grace_s: float) -> None:
        self._end(record, grace_s)
        try:
            asyncio.run(plugging.delete(self._attachment(record)))
        except PluginFailed as error:
            raise PodError(f"{record.key}: its address is not released yet, so repeat this: {error}") from error
        self._unregister(record.key, record.uid)
        if netns.exists(record.netns):
            _ip("netns", "delete", record.netns)
        self.records.forget(record.key)

    def _end(self, record: Record, grace_s: float) -> None:
        if netns.exists(record.netns):
            try:
                processes.end(record.netns, grace_s=grace_s, waiter=record.waiter)
            except TimeoutError as error:
                raise PodError(f"{record.key}: {error}") from error

    def _unregister(self, key: PodKey, uid: str) -> None:
        """The Pod resource goes, if it is still that one."""
        there = self._there(key)
        if there is None or there["metadata"].get("uid") != uid:
            return
        version = str(there["metadata"]["resourceVersion"])
        path = object_path("pod", key.name, key.namespace)
        answer = self._client.request("DELETE", path, headers={"If-Match": version})
        if answer.status >= 400 and answer.status not in (404, *_CONFLICT):
            raise PodError(f"Pod/{key} cannot be deleted: {answer.json.get('error', answer.status)}")

    # --- collect

    def collect(self) -> list[PodKey]:
        """Releases what is left of pods that this node does not run any more; whose it was. Raises PodError,
        CommandError."""
        with self.records.collecting():
            alive: dict[PodKey, Record] = {}
            gone = []
            for record in self.records.all():
                if netns.exists(record.netns):
                    alive[record.key] = record
                else:
                    gone.append(record)
            asyncio.run(plugging.collect(NETWORK, self._socket, sorted(record.container for record in alive.values())))
            left = [pod for pod in self._client.items("pod") if self._ours(pod)]
            for pod in left:
                key = PodKey(pod["metadata"]["namespace"], pod["metadata"]["name"])
                uid = str(pod["metadata"].get("uid", ""))
                if key not in alive or alive[key].uid != uid:
                    self._unregister(key, uid)
                    gone.append(
                        Record(namespace=key.namespace, name=key.name, container="", uid=uid, netns="", started=0)
                    )
            for record in gone:
                if record.key not in alive:
                    self.records.forget(record.key)
        return sorted({record.key for record in gone})

    # --- what is there

    def ready(self) -> str:
        """Why no pod can be started now; empty when one can. Raises Refused for what waiting does not mend."""
        if not self._socket.is_socket():
            return f"no agent listens on {self._socket}: is `tortie serve node-dataplane` running on this node?"
        answer = self._client.once("GET", object_path("node", self.node))
        if answer.status == 404:
            return f"there is no Node/{self.node}: is this node called so (--node, TORTIE_NODE), and was it applied?"
        return ""

    def has_namespace(self, name: str) -> bool:
        return self._client.request("GET", object_path("namespace", name)).status != 404

    def _there(self, key: PodKey) -> Json | None:
        answer = self._client.request("GET", object_path("pod", key.name, key.namespace))
        return answer.json if answer.status < 400 else None

    def _ours(self, pod: Json) -> bool:
        annotations = pod["metadata"].get("annotations") or {}
        return bool(annotations.get(STARTED_BY) == US and pod["spec"].get("nodeName") == self.node)

    def _attachment(self, record: Record) -> Attachment:
        return Attachment(
            key=record.key,
            container=record.container,
            uid=record.uid,
            netns=netns.path(record.netns),
            network=NETWORK,
            socket=self._socket,
        )


def _ip(*arguments: str) -> None:
    if shutil.which("ip") is None:
        raise CannotRun("there is no program `ip`: install iproute2")
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise CannotRun(f"`ip {' '.join(arguments)}` said: {done.stderr.strip()}")
