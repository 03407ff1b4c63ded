"""The profiles that are made of namespaces and service accounts: shown as Calico shows them, never written. Pure.

Namespace shop              kns.shop           allows everything, applies pcns. labels
ServiceAccount shop/robot   ksa.shop.robot     no rules, applies pcsa. labels
"""

from __future__ import annotations

from bus_schemas.resources import Metadata, Namespace, Profile, Resource, ServiceAccount
from bus_schemas.resources.policy_scopes import ALLOW_ALL, ProfileSpec

OF_NAMESPACE, OF_ACCOUNT = "kns.", "ksa."
_NAME = "projectcalico.org/name"

Origin = tuple[type[Resource], tuple[str, str]]


def made_of(resource: Resource) -> Profile | None:
    """The profile that the resource makes, if it makes one."""
    match resource:
        case Namespace():
            labels = _applied("pcns.", resource)
            spec = ProfileSpec(ingress=ALLOW_ALL.ingress, egress=ALLOW_ALL.egress, labels_to_apply=labels)
            return _profile(OF_NAMESPACE + resource.metadata.name, resource, spec)
        case ServiceAccount():
            name = f"{OF_ACCOUNT}{resource.metadata.namespace}.{resource.metadata.name}"
            return _profile(name, resource, ProfileSpec(labels_to_apply=_applied("pcsa.", resource)))
    return None


def name_of(kind: type[Resource], key: tuple[str, str]) -> str:
    """How the profile is called that an object makes; empty: it makes none."""
    if kind is Namespace:
        return OF_NAMESPACE + key[1]
    return f"{OF_ACCOUNT}{key[0]}.{key[1]}" if kind is ServiceAccount else ""


def origin(name: str) -> Origin | None:
    """What a profile of this name is made of; None: it is a resource of its own."""
    if name.startswith(OF_NAMESPACE):
        return Namespace, ("", name.removeprefix(OF_NAMESPACE))
    namespace, dot, account = name.removeprefix(OF_ACCOUNT).partition(".")
    return (ServiceAccount, (namespace, account)) if name.startswith(OF_ACCOUNT) and dot else None


def why_not_deleted(kind: type[Resource], key: tuple[str, str]) -> str:
    """Empty: it is not made of anything."""
    made = origin(key[1]) if kind is Profile else None
    if made is None:
        return ""
    parent, of = made
    title = "/".join(filter(None, (parent.KIND, *of)))
    return f"Profile/{key[1]} is made of {title}, and goes with it: it cannot be deleted by itself"


def _profile(name: str, of: Resource, spec: ProfileSpec) -> Profile:
    created = of.metadata.creation_timestamp
    return Profile(metadata=Metadata(name=name, uid=of.metadata.uid, creation_timestamp=created), spec=spec)


def _applied(prefix: str, of: Resource) -> dict[str, str]:
    return {**{prefix + key: value for key, value in of.metadata.labels.items()}, prefix + _NAME: of.metadata.name}
