"""Speaks to the api, by TCP or a unix socket, with the standard library alone: a command starts in milliseconds.

with the address   "http://host:port"  or  "unix:/path";  none: `way` knows, and it may be an api over Kubernetes that
                   lives as long as the command
Client(address).get("/v1/ippools")  ->  JSON      raises Refused (the api said no), Unreachable (nobody there)
Client(address).stream("/v1/events") -> (event, data) of server-sent events, until Unreachable
"""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, NamedTuple
from urllib.parse import SplitResult, quote, urlencode, urlsplit

from tortie.cli import way
from tortie.cli.errors import Misused, Refused, Unreachable

TIMEOUT_S = 30.0
AGAIN_S = 0.5

Json = Any
Query = Mapping[str, str | bool | None]
Headers = Mapping[str, str]


class Answer(NamedTuple):
    status: int
    json: Json


class _UnixConnection(HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    def __init__(self, address: str = "", *, timeout_s: float = TIMEOUT_S, patience_s: float = 0.0) -> None:
        """`address` empty: whoever `way` finds. A request that nobody answers, or "not now", is made again for
        `patience_s`: for callers whose requests may be repeated. Raises Misused for an address of no sense."""
        found = way.chosen(address)
        self._direct = way.direct(found) if isinstance(found, way.Kubernetes) else None
        self.address = found.address if isinstance(found, way.Api) else str(found)
        self._default = found.address == way.DEFAULT_ADDRESS if isinstance(found, way.Api) else False
        self.stale = ""
        """Why the last answer may be out of date; empty: it is not."""
        self.place = ""
        """Where the stream stands: the last `id:` that came; empty: none did."""
        self._timeout_s = timeout_s
        self._patience_s = patience_s
        self._parts = urlsplit("unix:/" if self._direct is not None else self.address)
        usable = self._parts.path if self._parts.scheme == "unix" else self._parts.hostname
        if self._parts.scheme not in ("http", "unix") or not usable or not _has_port(self._parts):
            raise Misused(f"the api's address {self.address!r} is neither http://host:port nor unix:/path")

    # --- requests

    def get(self, path: str, query: Query | None = None) -> Json:
        return self._json("GET", path, query)

    def post(self, path: str, body: str = "", query: Query | None = None) -> Json:
        """`body` is YAML or JSON text."""
        return self._json("POST", path, query, body)

    def put(self, path: str, body: str, query: Query | None = None, headers: Headers | None = None) -> Json:
        return self._json("PUT", path, query, body, headers)

    def delete(self, path: str, query: Query | None = None) -> Json:
        return self._json("DELETE", path, query)

    def stream(self, path: str, query: Query | None = None) -> Iterator[tuple[str, str]]:
        """The server-sent events of a path as (event, data), for as long as the api lives. Raises Unreachable when it
        ends or breaks off. What names its place (`id:`) also moves `place`."""
        with self._open("GET", path, query, timeout_s=None) as response:
            if response.status >= 400:
                raise _refusal(self._answer(response))
            event, data = "message", list[str]()
            try:
                for raw in response:
                    line = raw.decode().rstrip("\r\n")
                    field, _, value = line.partition(":")
                    value = value.removeprefix(" ")
                    if field == "event":
                        event = value
                    elif field == "data":
                        data.append(value)
                    elif field == "id":
                        self.place = value
                    elif not line and data:
                        yield event, "\n".join(data)
                        event, data = "message", []
            except (HTTPException, OSError) as error:
                raise Unreachable(f"the api at {self.address} broke off: {_reason(error)}") from error
        raise Unreachable(f"the api at {self.address} ended: ask again when it is back")

    # --- the ones that every caller needs

    def apply(self, text: str, *, dry_run: bool = False) -> list[Json]:
        """Creates or replaces every document of the text, or none; one result an object."""
        results: list[Json] = self.post("/v1/apply", text, {"dryRun": dry_run or None})["results"]
        return results

    def delete_one(self, kind: str, name: str, namespace: str = "") -> Json:
        """Raises Refused with status 404 when there is no such object."""
        return self.delete(object_path(kind, name, namespace))["results"][0]

    def items(self, kind: str, namespace: str = "") -> list[Json]:
        """The manifests of a kind, in all namespaces or one."""
        items: list[Json] = self.get(f"/v1/{segment(kind)}", {"namespace": namespace or None})["items"]
        return items

    def request(
        self, method: str, path: str, body: str = "", query: Query | None = None, headers: Headers | None = None
    ) -> Answer:
        """Any request, any answer but "not now" (503). Raises Unreachable."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return self.once(method, path, body, query, headers)
            except Unreachable:
                if time.monotonic() > deadline:
                    raise
            time.sleep(AGAIN_S)

    def once(
        self, method: str, path: str, body: str = "", query: Query | None = None, headers: Headers | None = None
    ) -> Answer:
        """The same without patience."""
        with self._open(method, path, query, body, headers, timeout_s=self._timeout_s) as response:
            self.stale = response.getheader("Tortie-Stale", "")
            return self._answer(response)

    def _answer(self, response: HTTPResponse) -> Answer:
        try:
            text = response.read()
        except (HTTPException, OSError) as error:
            raise Unreachable(f"the api at {self.address} gave half an answer: {_reason(error)}") from error
        if response.getheader("Content-Type", "").partition(";")[0] != "application/json":
            raise Unreachable(f"{self.address} answered {response.status} {response.reason}: is this the api?")
        return Answer(response.status, json.loads(text))

    def _json(
        self, method: str, path: str, query: Query | None, body: str = "", headers: Headers | None = None
    ) -> Json:
        answer = self.request(method, path, body, query, headers)
        if answer.status >= 400:
            raise _refusal(answer)
        return answer.json

    @contextlib.contextmanager
    def _open(
        self,
        method: str,
        path: str,
        query: Query | None,
        body: str = "",
        headers: Headers | None = None,
        *,
        timeout_s: float | None,
    ) -> Iterator[HTTPResponse]:
        if self._direct is not None:
            self._parts = urlsplit(self._direct.address(method, path))
        connection = self._connection(timeout_s)
        try:
            sent = {"Accept": "application/json", **(headers or {})}
            if method in ("POST", "PUT"):
                sent["Content-Type"] = "application/yaml"
            try:
                connection.request(method, path + _query(query), body.encode() or None, sent)
                response = connection.getresponse()
            except (HTTPException, OSError) as error:
                hint = "; TORTIE_API says where one is, KUBECONFIG where a cluster is" if self._default else ""
                raise Unreachable(f"no api at {self.address}: {_reason(error)}{hint}") from error
            if response.status == 503:
                raise Unreachable(_unavailable(response))
            yield response
        finally:
            connection.close()

    def _connection(self, timeout_s: float | None) -> HTTPConnection:
        if self._parts.scheme == "unix":
            return _UnixConnection(self._parts.path, timeout_s)
        return HTTPConnection(self._parts.hostname or "", self._parts.port or 80, timeout=timeout_s)


def _has_port(parts: SplitResult) -> bool:
    """A port that can be one, or none."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def segment(text: str) -> str:
    """A name as one segment of a path."""
    return quote(text, safe="")


def object_path(kind: str, name: str, namespace: str = "") -> str:
    """Where one object is found."""
    if namespace:
        return f"/v1/namespaces/{segment(namespace)}/{segment(kind)}/{segment(name)}"
    return f"/v1/{segment(kind)}/{segment(name)}"


def _query(query: Query | None) -> str:
    given = {key: "true" if value is True else value for key, value in (query or {}).items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _refusal(answer: Answer) -> Refused:
    details = [describe_fault(fault) for fault in answer.json["faults"]]
    absent = answer.status == 404 and "unknown" not in answer.json
    return Refused(answer.json["error"], details, status=answer.status, absent=absent)


def _unavailable(response: HTTPResponse) -> str:
    try:
        return str(json.loads(response.read())["error"])
    except (ValueError, KeyError, TypeError):
        return f"the api answered {response.status} {response.reason}"


def describe_fault(fault: Mapping[str, Any], where: str = "") -> str:
    """A fault of the api as one line; `where` replaces the number of its document."""
    place = where or f"document {fault['document'] + 1}"
    return ": ".join(filter(None, (place, fault.get("object", ""), fault["path"], fault["reason"])))


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such socket"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
