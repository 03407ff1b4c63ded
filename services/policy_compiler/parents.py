"""Whom pods, network sets and host endpoints inherit labels from: namespaces and service accounts."""

from __future__ import annotations

from bus_schemas.ids import PodKey
from bus_schemas.resources import Namespace, ServiceAccount
from services.policy_compiler.labels import NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX, Labels, inherited


class Parents:
    def __init__(self) -> None:
        self.namespaces: dict[str, Labels] = {}
        """By name, what each gives: `pcns.` labels."""
        self.accounts: dict[PodKey, Labels] = {}
        """By namespace and name: `pcsa.` labels."""

    def __bool__(self) -> bool:
        return bool(self.namespaces or self.accounts)

    def set_namespace(self, name: str, namespace: Namespace | None) -> None:
        if namespace is None:
            self.namespaces.pop(name, None)
        else:
            self.namespaces[name] = inherited(NAMESPACE_PREFIX, name, namespace.metadata.labels)

    def set_account(self, key: PodKey, account: ServiceAccount | None) -> None:
        if account is None:
            self.accounts.pop(key, None)
        else:
            self.accounts[key] = inherited(SERVICE_ACCOUNT_PREFIX, key.name, account.metadata.labels)
