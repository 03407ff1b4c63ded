"""Which resources the API server has: a kind whose CRD is not there is left out and looked for again later."""

from __future__ import annotations

import asyncio

import msgspec

from services.kube_bridge.client import Client
from services.kube_bridge.errors import KubeError, Refused
from services.kube_bridge.sources import Source


class _Resource(msgspec.Struct):
    name: str


class _ResourceList(msgspec.Struct):
    resources: list[_Resource] | None = None


class Discovery:
    """Remembers each group and version for `fresh_s`."""

    def __init__(self, client: Client, fresh_s: float) -> None:
        self._client = client
        self._fresh_s = fresh_s
        self._known: dict[str, tuple[float, frozenset[str]]] = {}
        self._asking: dict[str, asyncio.Lock] = {}

    async def has(self, source: Source) -> bool:
        """Raises KubeError: the server does not say."""
        return source.plural in await self._resources(source.root)

    def reports(self, source: Source) -> bool:
        """Whether its status can be written, as far as was asked."""
        return f"{source.plural}/status" in self._known.get(source.root, (0.0, frozenset[str]()))[1]

    def forget(self, source: Source) -> None:
        self._known.pop(source.root, None)

    async def _resources(self, root: str) -> frozenset[str]:
        async with self._asking.setdefault(root, asyncio.Lock()):
            now = asyncio.get_running_loop().time()
            until, names = self._known.get(root, (0.0, frozenset[str]()))
            if now < until:
                return names
            try:
                body = await self._client.get(root, resource="discovery")
                listed = msgspec.json.decode(body, type=_ResourceList)
            except Refused as refused:
                if refused.status != 404:
                    raise
                listed = _ResourceList()
            except msgspec.DecodeError as error:
                raise KubeError(f"{root}: the list of resources cannot be read: {error}") from error
            names = frozenset(resource.name for resource in listed.resources or ())
            self._known[root] = (now + self._fresh_s * 0.9, names)
            return names
