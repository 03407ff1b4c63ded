"""By what the table tells one pod from another: its link, or its addresses. Pure.

    by link       the agent made the links and numbered them: policy hangs on the link (`frame`, `link_groups`)
    by address    somebody else made them, and several may share a device: policy hangs on addresses (`by_address`)

A layout says which fixed part the table has, and which elements of it stand for a pod. All else (rule groups, policies,
groups, host endpoints) is the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, Protocol

from services.node_dataplane.nft import frame
from services.node_dataplane.nft.chains import Chain
from services.node_dataplane.nft.frame import NodeRules
from services.node_dataplane.nft.link_groups import LinkGroups
from services.node_dataplane.nft.names import Way
from services.node_dataplane.nft.sets import SetSpec, address_key, group_key

Element = tuple[str, bytes]
"""Set or map, and key."""


class Spot(NamedTuple):
    """A pod's place in the table."""

    link: str
    addresses: tuple[str, ...]
    device: int = 0
    """Index of the device by which its packets come to be routed, where links are others': its own, or the bridge that
    it is a port of."""
    bridged: bool = False
    """It is a bridge."""


class Layout(Protocol):
    @property
    def sets(self) -> Mapping[str, SetSpec]: ...

    def chains(self, node: NodeRules) -> dict[str, Chain]: ...

    def members(self, node: NodeRules) -> dict[str, set[bytes]]:
        """Elements of the sets that the configuration fills."""
        ...

    def own(self, spot: Spot) -> Iterator[Element]:
        """What is there while the pod is, whether it has policy or not."""
        ...

    def dispatch(self, way: Way, spot: Spot) -> Iterator[Element]:
        """The maps that lead to its rule group."""
        ...

    def of_pods(self, way: Way) -> str:
        """Matches what comes from (egress), or goes to, a pod's device."""
        ...

    def release(self, spot: Spot) -> None:
        """The pod is gone."""
        ...


_RULES: dict[Way, str] = {"egress": frame.FROM, "ingress": frame.TO}
_DEVICE: dict[Way, str] = {"egress": "iifname", "ingress": "oifname"}


class ByLink:
    sets: Mapping[str, SetSpec] = frame.SETS

    def __init__(self, groups: LinkGroups) -> None:
        self._groups = groups

    def chains(self, node: NodeRules) -> dict[str, Chain]:
        return frame.chains(node)

    def members(self, node: NodeRules) -> dict[str, set[bytes]]:
        return frame.members(node)

    def own(self, spot: Spot) -> Iterator[Element]:
        """Not its floating addresses: policy knows it by its own."""
        group = group_key(self._groups.of(spot.link))
        for address in spot.addresses:
            key = address_key(address)
            yield (frame.POD_SOURCES4 if len(key) == 4 else frame.POD_SOURCES6), group + key

    def dispatch(self, way: Way, spot: Spot) -> Iterator[Element]:
        yield _RULES[way], group_key(self._groups.of(spot.link))

    def of_pods(self, way: Way) -> str:
        return f"{_DEVICE[way]} {frame.POD}"

    def release(self, spot: Spot) -> None:
        self._groups.release(spot.link)
