"""Which cluster the API server is of: the uid of its namespace kube-system.

Asked before every list. A server that answers for another cluster than the one whose objects are on the bus (a cluster
made anew, a load balancer that leads elsewhere) would, believed, take all of them away.
"""

from __future__ import annotations

import asyncio

import msgspec

from services.kube_bridge.client import Client
from services.kube_bridge.errors import KubeError, OtherCluster, Refused
from services.kube_bridge.views import MetaHead

PATH = "/api/v1/namespaces/kube-system"
FRESH_S = 1.0
"""Sources that begin together ask once."""


class Identity:
    def __init__(self, client: Client) -> None:
        self._client = client
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self.uid = ""
        """Empty: not known yet."""

    async def check(self) -> str:
        """The cluster's uid. Raises OtherCluster, and KubeError when the server does not say."""
        async with self._asking:
            loop = asyncio.get_running_loop()
            if loop.time() - self._asked_at < FRESH_S:
                return self.uid
            uid = await self._ask()
            if self.uid and uid != self.uid:
                raise OtherCluster(
                    f"{self._client.host} is the cluster {uid}, not {self.uid} as before: nothing is mirrored from it; "
                    "mend the address, or restart the bridge if the cluster was made anew"
                )
            self.uid = uid
            self._asked_at = loop.time()
            return uid

    async def _ask(self) -> str:
        try:
            body = await self._client.get(PATH, resource="namespaces")
        except Refused as refused:
            if refused.status == 404:
                raise OtherCluster(f"{self._client.host} has no namespace kube-system: it is no cluster") from refused
            raise
        try:
            uid = msgspec.json.decode(body, type=MetaHead).metadata.uid
        except msgspec.DecodeError as error:
            raise KubeError(f"{self._client.host}: the namespace kube-system cannot be read: {error}") from error
        if not uid:
            raise KubeError(f"{self._client.host}: the namespace kube-system has no uid")
        return uid
