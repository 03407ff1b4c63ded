"""The service addresses in the table: frontends and their backends as elements, and the chains that they lead to.

frontend --> element of `services`, elements of `backends`     changed one by one
         --> chains and sets                                   exist while a frontend leads there
"""

from __future__ import annotations

from services.node_dataplane.nft import service_chains
from services.node_dataplane.nft.references import References
from services.node_dataplane.nft.ruleset import Ruleset
from services.node_dataplane.nft.service_chains import ADDRESSES, BACKENDS, MAPS
from services.node_dataplane.nft.sets import backend_index, service_key
from services.node_dataplane.service_proxy.core import Changes, Frontend, Target

_ALWAYS = None
"""Who uses what is there without a service."""


class ServiceMaps:
    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._chains: References[Frontend | None, str] = References()
        self._sets: References[Frontend | None, str] = References()
        self._backends: dict[Frontend, int] = {}
        """How many elements of the map of backends are its own."""
        for name, spec in service_chains.SETS.items():
            ruleset.open(name, spec)
        kept = service_chains.base_chains() | service_chains.kept_chains()
        self._chains.set(_ALWAYS, frozenset(kept))
        for name, chain in kept.items():
            ruleset.chain(name, chain)

    def update(self, changes: Changes) -> None:
        for address, own in changes.addresses.items():
            if own:
                self._ruleset.put(ADDRESSES[len(address)], address)
            else:
                self._ruleset.discard(ADDRESSES[len(address)], address)
        for frontend, target in changes.frontends.items():
            self._set(frontend, target)

    def _set(self, frontend: Frontend, target: Target | None) -> None:
        size = len(frontend.address)
        key = service_key(*frontend)
        if target is None:
            made = service_chains.Rendered()
            self._ruleset.discard(MAPS[size], key)
        else:
            made = service_chains.render(size, frontend.protocol, target)
            self._ruleset.put(MAPS[size], key, f"goto {made.chain}")
        for name, spec in made.sets.items():
            if not self._ruleset.has_set(name):
                self._ruleset.open(name, spec)
        for name, chain in made.chains.items():
            self._ruleset.chain(name, chain)
        for name in self._chains.set(frontend, frozenset(made.chains)).lost:
            self._ruleset.chain(name, None)
        for name in self._sets.set(frontend, frozenset(made.sets)).lost:
            self._ruleset.close(name)
        backends = target.pool.backends if target is not None and made.indexed else ()
        before = self._backends.pop(frontend, 0)
        if backends:
            self._backends[frontend] = len(backends)
        for index, value in service_chains.rows(backends).items():
            self._ruleset.put(BACKENDS[size], key + backend_index(index), value)
        for index in range(len(backends), before):
            self._ruleset.discard(BACKENDS[size], key + backend_index(index))
