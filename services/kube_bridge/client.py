"""The API server as the bridge speaks with it: requests with typed failures, and watches as lines.

`kubernetes_asyncio` gives configuration, credentials and the HTTP session; its models and its Watch are left alone. The
Watch asks again with the version that the server has just called too old, does not look at the status of an answer
that it streams, loses what the server says of when to come back, and waits for ever on a connection that is dead.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from kubernetes_asyncio import config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config.config_exception import ConfigException
from yaml import YAMLError

from bus_schemas import VERSION
from chassis.errors import CannotServe
from services.kube_bridge.errors import Refused, Stalled, Unreachable
from services.kube_bridge.lines import Lines
from services.kube_bridge.metrics import REQUESTS
from services.kube_bridge.views import StatusBody

CONNECT_S = 10.0
REQUEST_S = 60.0
CONNECTIONS = 256
"""Every watch has one of its own."""
ERROR_BYTES = 64 * 1024
BAD_CONFIGURATION = (ConfigException, OSError, ValueError, YAMLError)
"""What the library raises of a kubeconfig, its files and its programs."""
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"

JSON = "application/json"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


class Client:
    """Made by `Client.open`. All methods raise Unreachable and Refused."""

    def __init__(self, api: ApiClient, reload: Any) -> None:
        self._api = api
        self._reload = reload
        self._session: aiohttp.ClientSession = api.rest_client.pool_manager
        self.host = str(api.configuration.host).rstrip("/")

    @staticmethod
    @asynccontextmanager
    async def open(kubeconfig: str = "", context: str = "") -> AsyncIterator[Client]:
        """Connects at the first request. Raises CannotServe: there are no usable credentials."""
        configuration = Configuration()
        reload = await _configure(configuration, kubeconfig, context)
        configuration.connection_pool_maxsize = CONNECTIONS
        try:
            api = ApiClient(configuration)
        except (OSError, ssl.SSLError) as error:
            raise CannotServe(f"TORTIE_KUBECONFIG: the certificates cannot be used: {error}") from error
        api.user_agent = f"tortie-kube-bridge/{VERSION}"
        try:
            yield Client(api, reload)
        finally:
            await api.close()

    async def get(self, path: str, *, resource: str, **params: str | int) -> bytes:
        return await self.request("GET", path, resource=resource, params=params)

    async def send(
        self,
        method: str,
        path: str,
        body: Any,
        *,
        resource: str,
        content_type: str = JSON,
        timeout_s: float = REQUEST_S,
    ) -> bytes:
        """POST, PUT, PATCH or DELETE."""
        return await self.request(
            method, path, resource=resource, body=body, content_type=content_type, timeout_s=timeout_s
        )

    async def request(
        self,
        method: str,
        path: str,
        *,
        resource: str,
        params: Mapping[str, str | int] | None = None,
        body: Any = None,
        content_type: str = JSON,
        timeout_s: float = REQUEST_S,
    ) -> bytes:
        """The body of the answer. `resource` is a word for metrics."""
        timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_S)
        data = None if body is None else msgspec.json.encode(body)
        async with self._answer(method, path, resource, params, data, content_type, timeout) as response:
            return await response.read()

    @asynccontextmanager
    async def watch(
        self, path: str, *, resource: str, idle_s: float, **params: str | int
    ) -> AsyncIterator[AsyncIterator[list[bytes]]]:
        """The lines of a watch, as many at a time as have come. Ends when the server ends it; raises Stalled when
        nothing came for `idle_s`, Unreachable when it breaks."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=idle_s)
        asked = {"watch": "true", "allowWatchBookmarks": "true", **params}
        async with self._answer("GET", path, resource, asked, None, JSON, timeout, verb="WATCH") as response:
            yield _lines(response)

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        path: str,
        resource: str,
        params: Mapping[str, str | int] | None,
        data: bytes | None,
        content_type: str,
        limits: aiohttp.ClientTimeout,
        verb: str = "",
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        verb = verb or method
        headers: dict[str, str] = {"Accept": JSON, "User-Agent": self._api.user_agent or ""}
        if data is not None:
            headers["Content-Type"] = content_type
        configuration = self._api.configuration
        try:
            await self._api.update_params_for_auth(headers, [], ["BearerToken"])
            async with self._session.request(
                method,
                self.host + path,
                params=dict(params or {}),
                data=data,
                headers=headers,
                timeout=limits,
                proxy=configuration.proxy,
                server_hostname=configuration.tls_server_name,
            ) as response:
                REQUESTS.labels(verb, resource, response.status).inc()
                if response.status >= 400:
                    refused = await _refused(response)
                    if refused.status == 401:
                        await self._renew()
                    raise refused
                yield response
        except TimeoutError as error:
            REQUESTS.labels(verb, resource, "timeout").inc()
            raise Stalled(f"{self.host}: no answer in time ({verb} {resource})") from error
        except (aiohttp.ClientError, OSError) as error:
            REQUESTS.labels(verb, resource, "broken").inc()
            raise Unreachable(f"{self.host}: {error or type(error).__name__}") from error

    async def _renew(self) -> None:
        """Credentials of a kubeconfig may come from a program and run out."""
        try:
            await self._reload()
        except BAD_CONFIGURATION as error:
            raise Unreachable(f"the credentials could not be renewed: {error}") from error


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    lines = Lines()
    async for chunk in response.content.iter_any():
        complete = lines.feed(chunk)
        if complete:
            yield complete
    if lines.cut:
        raise Unreachable("the watch ended in the middle of an event")


async def _refused(response: aiohttp.ClientResponse) -> Refused:
    body = await response.content.read(ERROR_BYTES)
    try:
        status = msgspec.json.decode(body, type=StatusBody)
    except msgspec.DecodeError:
        status = StatusBody(reason=response.reason or "", message=body[:200].decode(errors="replace").strip())
    wait = response.headers.get("Retry-After", "")
    return Refused(response.status, status.reason, status.message, float(wait) if wait.isdigit() else 0.0)


async def _configure(configuration: Configuration, kubeconfig: str, context: str) -> Any:
    """Fills it; returns how to do so again."""

    async def from_file() -> None:
        await config.load_kube_config(
            config_file=kubeconfig or None,
            context=context or None,
            client_configuration=configuration,
            persist_config=False,
        )

    async def from_account() -> None:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]

    reload = from_account if not kubeconfig and IN_CLUSTER in os.environ else from_file
    if kubeconfig and not Path(kubeconfig).is_file():
        raise CannotServe(f"TORTIE_KUBECONFIG: there is no file {kubeconfig}")
    try:
        async with asyncio.timeout(REQUEST_S):
            await reload()
    except TimeoutError as error:
        raise CannotServe("TORTIE_KUBECONFIG: its program for credentials does not answer") from error
    except (*BAD_CONFIGURATION, TypeError, KeyError) as error:
        account = reload is from_account
        where = kubeconfig or ("the pod's service account" if account else "KUBECONFIG or ~/.kube/config")
        raise CannotServe(f"TORTIE_KUBECONFIG: no cluster is known from {where}: {error}") from error
    return reload
