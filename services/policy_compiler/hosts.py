"""Host endpoints: devices of nodes under policy, with the labels and the last word of their profiles.

    HostEndpoint -------- node, device, addresses, labels, ports --+
    Profile ------------- labels to apply, rules ------------------+--> Host.now: Contents, Host.station: Station
    Namespace (kns.) ---- pcns. labels, allows everything ---------+
    ServiceAccount (ksa.) pcsa. labels, says nothing --------------+

`projectcalico-default-allow` always exists and allows everything. A profile that does not exist denies: what would have
come after it is never asked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple, final

from bus_schemas.ids import NodeName, PodKey, RulesId
from bus_schemas.policy import rules_id
from bus_schemas.resources import HostEndpoint, Profile
from bus_schemas.resources.policy_scopes import HostEndpointPort
from services.policy_compiler.labels import Labels, of_host, own
from services.policy_compiler.members import PROTOCOLS, Change, Contents, Member, NamedPort, is_port, packed_all
from services.policy_compiler.parents import Parents

DEFAULT_ALLOW = "projectcalico-default-allow"
OF_NAMESPACE = "kns."
OF_ACCOUNT = "ksa."


def is_reserved(profile: str) -> bool:
    """Profiles of this name are not made of Profile resources."""
    return profile == DEFAULT_ALLOW or profile.startswith((OF_NAMESPACE, OF_ACCOUNT))


class HostKey(NamedTuple):
    """The key of the attachment."""

    node: NodeName
    name: str


class Station(NamedTuple):
    """What an attachment needs to know beside the policies."""

    node: NodeName
    interface: str
    addresses: tuple[str, ...]
    """expectedIPs, those that are addresses."""
    profiles: tuple[RulesId, ...]
    default: Literal["allow", "deny"]
    """After the profiles."""


@final
class Host(Member):
    """One host endpoint."""

    __slots__ = ("name", "station")

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.station: Station | None = None
        """As of the last flush."""


class _HostEndpoint(NamedTuple):
    """What matters of a HostEndpoint."""

    node: NodeName
    interface: str
    labels: Labels
    texts: tuple[str, ...]
    addresses: tuple[bytes, ...]
    ports: tuple[NamedPort, ...]
    profiles: tuple[str, ...]


class Hosts:
    def __init__(self, parents: Parents) -> None:
        self._parents = parents
        self._profiles: dict[str, Labels] = {}
        self._hosts: dict[str, Host] = {}
        self._found: dict[Host, _HostEndpoint] = {}
        self._of_profile: dict[str, set[Host]] = {}
        self._dirty: set[Host] = set()

    def __len__(self) -> int:
        return len(self._hosts)

    def set(self, name: str, resource: HostEndpoint | None) -> tuple[str, ...]:
        """Returns what had to be left out."""
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = Host(name)
        self._dirty.add(host)
        found = self._found.pop(host, None)
        if found is not None:
            self._unlist(host, found.profiles)
        if resource is None:
            return ()
        spec = resource.spec
        addresses, rest = packed_all(spec.expected_ips)
        faults = [f"spec.expectedIPs: {text!r} is no address" for text in rest]
        ports = []
        for at, port in enumerate(spec.ports):
            protocol = _protocol(port)
            if protocol is None or not is_port(port.port):
                faults.append(f"spec.ports[{at}]: {port.protocol!r} {port.port} is no port")
            else:
                ports.append(NamedPort(port.name, protocol, port.port))
        if not spec.node:
            faults.append("spec.node: no node is named")
        self._found[host] = _HostEndpoint(
            NodeName(spec.node),
            spec.interface_name,
            resource.metadata.labels,
            tuple(text for text in spec.expected_ips if text not in rest),
            addresses,
            tuple(ports),
            spec.profiles,
        )
        for profile in spec.profiles:
            self._of_profile.setdefault(profile, set()).add(host)
        return tuple(faults)

    def set_profile(self, name: str, profile: Profile | None) -> None:
        if is_reserved(name):
            return
        if profile is None:
            self._profiles.pop(name, None)
        else:
            self._profiles[name] = own(profile.spec.labels_to_apply)
        self._dirty.update(self._of_profile.get(name, ()))

    def namespace_changed(self, name: str) -> None:
        self._dirty.update(self._of_profile.get(OF_NAMESPACE + name, ()))

    def account_changed(self, key: PodKey) -> None:
        self._dirty.update(self._of_profile.get(f"{OF_ACCOUNT}{key.namespace}.{key.name}", ()))

    def flush(self) -> Iterator[Change]:
        """The hosts that differ from the last flush. Each is brought up to date as it is given."""
        dirty, self._dirty = self._dirty, set()
        for host in dirty:
            found = self._found.get(host)
            if found is None:
                del self._hosts[host.name]
            before, after = host.now, None if found is None else self._contents(found)
            station = None if found is None or not found.node else self._station(found)
            if (before, host.station) != (after, station):
                host.now, host.station = after, station
                yield Change(host, before, after)

    def _unlist(self, host: Host, profiles: tuple[str, ...]) -> None:
        for profile in set(profiles):
            self._of_profile[profile].discard(host)
            if not self._of_profile[profile]:
                del self._of_profile[profile]

    def _contents(self, found: _HostEndpoint) -> Contents:
        applied = (labels for name in found.profiles if (labels := self._applied(name)) is not None)
        return Contents(of_host(found.labels, applied), found.addresses, found.ports)

    def _station(self, found: _HostEndpoint) -> Station:
        rules: list[RulesId] = []
        default: Literal["allow", "deny"] = "deny"
        for name in found.profiles:
            if self._applied(name) is None:
                break
            if name == DEFAULT_ALLOW or name.startswith(OF_NAMESPACE):
                default = "allow"
                break
            if not is_reserved(name):
                rules.append(rules_id(Profile.TOKEN, "", name))
        return Station(found.node, found.interface, found.texts, tuple(rules), default)

    def _applied(self, profile: str) -> Labels | None:
        """The labels that the profile applies. None: there is no such profile."""
        if profile == DEFAULT_ALLOW:
            return {}
        if profile.startswith(OF_NAMESPACE):
            return self._parents.namespaces.get(profile.removeprefix(OF_NAMESPACE))
        if profile.startswith(OF_ACCOUNT):
            namespace, _, account = profile.removeprefix(OF_ACCOUNT).partition(".")
            return self._parents.accounts.get(PodKey(namespace, account))
        return self._profiles.get(profile)


def _protocol(port: HostEndpointPort) -> int | None:
    given = port.protocol
    return given if isinstance(given, int) and 0 < given < 256 else PROTOCOLS.get(str(given).upper())
