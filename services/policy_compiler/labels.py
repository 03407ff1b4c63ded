"""The labels that a selector sees: the pod's own, and what it inherits from its namespace and service account.

    app=web                                                  the pod's own
    projectcalico.org/namespace=shop                         always
    projectcalico.org/orchestrator=k8s                       always
    projectcalico.org/serviceaccount=default                 unless the name is longer than a label value may be
    pcns.team=blue  pcns.projectcalico.org/name=shop         from the Namespace, when it is known
    pcsa.role=ci    pcsa.projectcalico.org/name=default      from the ServiceAccount, when it is known

A network set in a namespace has its own, `projectcalico.org/namespace` and the namespace's `pcns.`; a host endpoint
its own and those that its profiles apply.

These are Calico's names (libcalico-go, backend/k8s/conversion). Where something's own label has one of them, it is
left out: nobody may claim to be in another namespace. (Calico lets an own `pcns.` label win.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

NAMESPACE = "projectcalico.org/namespace"
ORCHESTRATOR = "projectcalico.org/orchestrator"
KUBERNETES = "k8s"
SERVICE_ACCOUNT = "projectcalico.org/serviceaccount"
NAMESPACE_PREFIX = "pcns."
SERVICE_ACCOUNT_PREFIX = "pcsa."
NAME = "projectcalico.org/name"

MAX_VALUE = 63
"""Longest label value of Kubernetes, in characters."""

_RESERVED = frozenset({NAMESPACE, ORCHESTRATOR, SERVICE_ACCOUNT})
_RESERVED_PREFIXES = (NAMESPACE_PREFIX, SERVICE_ACCOUNT_PREFIX)

Labels = Mapping[str, str]


def inherited(prefix: str, name: str, labels: Labels) -> dict[str, str]:
    """What a Namespace or ServiceAccount of this name gives to its pods."""
    given = {prefix + key: value for key, value in labels.items()}
    given[prefix + NAME] = name
    return given


def effective(
    mine: Labels, namespace: str, account: str, from_namespace: Labels, from_account: Labels
) -> dict[str, str]:
    """All labels of one pod. `account` is empty when the pod has none."""
    labels = dict(mine)
    for key in mine:
        if key.startswith(_RESERVED_PREFIXES):
            del labels[key]
    labels.update(from_namespace)
    labels.update(from_account)
    labels[NAMESPACE] = namespace
    labels[ORCHESTRATOR] = KUBERNETES
    if account and len(account) <= MAX_VALUE:
        labels[SERVICE_ACCOUNT] = account
    else:
        labels.pop(SERVICE_ACCOUNT, None)
    return labels


def own(labels: Labels) -> dict[str, str]:
    """Those that a network set, a host endpoint or a profile may claim for itself."""
    return {
        key: value for key, value in labels.items() if key not in _RESERVED and not key.startswith(_RESERVED_PREFIXES)
    }


def of_network_set(labels: Labels, namespace: str, from_namespace: Labels) -> dict[str, str]:
    """All labels of one network set. `namespace` is empty for a global one."""
    given = own(labels)
    if namespace:
        given.update(from_namespace)
        given[NAMESPACE] = namespace
    return given


def of_host(labels: Labels, applied: Iterable[Labels]) -> dict[str, str]:
    """All labels of one host endpoint: its own win, then those of its profiles in their order."""
    given = own(labels)
    for more in applied:
        given = {**more, **given}
    return given
