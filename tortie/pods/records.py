"""What `tortie pod` runs on this node: a directory for each pod.

    /run/tortie/pods/.lock               shared while a pod is being started, exclusive while leftovers are collected
    /run/tortie/pods/shop..web/          its lock is held while the pod is started or removed
        pod.json                         the record, written before anything of the pod exists
        log                              what a detached command wrote
        exit                             its exit code, once it has ended

Records and namespaces live and die together: both are gone after a reboot, or when a node that is a container starts
anew. So what the agent and the api still know of a pod without a record is a leftover.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from bus_schemas.ids import PodKey
from tortie.pods.errors import NameTaken, NoSuchPod, PodError

DIRECTORY = Path("/run/tortie/pods")
_RECORD, LOG, EXIT = "pod.json", "log", "exit"
_SEPARATOR = ".."
"""In no Kubernetes name, and a file's name may hold it."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    namespace: str
    name: str
    container: str
    """As the CNI plugin knows it; random, so that an earlier pod of the same name is another one."""
    uid: str
    """Of the Pod resource."""
    netns: str
    """By name."""
    started: float
    """Unix time."""
    labels: dict[str, str] = {}
    command: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    """Empty while it is being started."""
    waiter: int = 0
    """The process that waits for a detached command."""

    @property
    def key(self) -> PodKey:
        return PodKey(self.namespace, self.name)


class Records:
    def __init__(self, directory: Path = DIRECTORY) -> None:
        self._directory = directory

    def path(self, key: PodKey) -> Path:
        return self._directory / f"{key.namespace}{_SEPARATOR}{key.name}"

    def all(self) -> list[Record]:
        """By namespace and name."""
        if not self._directory.is_dir():
            return []
        found = (self._read(entry) for entry in self._directory.iterdir() if entry.is_dir())
        return sorted((record for record in found if record is not None), key=lambda record: record.key)

    def get(self, key: PodKey) -> Record:
        """Raises NoSuchPod."""
        record = self._read(self.path(key))
        if record is None:
            raise NoSuchPod(f"no pod {key} was started on this node by `tortie pod run`")
        return record

    def exit_code(self, key: PodKey) -> int | None:
        """Of its detached command; None: it has not ended, or nobody saw how."""
        try:
            return int((self.path(key) / EXIT).read_text())
        except (FileNotFoundError, ValueError):
            return None

    @contextmanager
    def claimed(self, record: Record) -> Iterator[None]:
        """The pod is new and ours in the body, and nothing is collected meanwhile. Raises NameTaken."""
        with self._gate(fcntl.LOCK_SH), self._made(self.path(record.key)):
            if self._read(self.path(record.key)) is not None:
                raise NameTaken(
                    f"there is a pod {record.key} on this node already: `tortie pod rm -n {record.namespace} "
                    f"{record.name}` removes it"
                )
            self.write(record)
            yield

    @contextmanager
    def held(self, key: PodKey) -> Iterator[Record]:
        """Nobody else starts or removes the pod in the body. Raises NoSuchPod."""
        try:
            with _locked(self.path(key)):
                yield self.get(key)
        except FileNotFoundError:
            self.get(key)  # says so
            raise

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """No pod is being started in the body."""
        with self._gate(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _made(self, path: Path) -> Iterator[None]:
        """The directory, locked; made again while somebody else removes it."""
        with ExitStack() as stack:
            while True:
                path.mkdir(mode=0o700, exist_ok=True)
                try:
                    stack.enter_context(_locked(path))
                    break
                except FileNotFoundError:
                    continue
            yield

    def write(self, record: Record) -> None:
        path = self.path(record.key) / _RECORD
        fresh = path.with_suffix(".new")
        fresh.write_bytes(msgspec.json.encode(record))
        fresh.rename(path)

    def forget(self, key: PodKey) -> None:
        shutil.rmtree(self.path(key), ignore_errors=True)

    def _read(self, directory: Path) -> Record | None:
        """None: there is none (a start that was cut short before it made anything)."""
        try:
            text = (directory / _RECORD).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            return msgspec.json.decode(text, type=Record)
        except msgspec.DecodeError as error:
            raise PodError(f"{directory / _RECORD} cannot be read: {error}") from error

    @contextmanager
    def _gate(self, how: int) -> Iterator[None]:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Raises FileNotFoundError when there is no such directory, or when its last holder removed it."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_ino != path.stat().st_ino:
            raise FileNotFoundError(path)
        yield
    finally:
        os.close(fd)
