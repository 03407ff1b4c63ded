"""Kubernetes' label selectors over pods and namespaces, as selectors over effective labels (see `labels`).

Only pods are meant, whatever else carries such labels: every one asks for the orchestrator's label too.
"""

from __future__ import annotations

from functools import lru_cache

from bus_schemas import selectors
from bus_schemas.resources import LabelSelector
from bus_schemas.selectors import Selector
from services.policy_compiler.labels import KUBERNETES, NAMESPACE, NAMESPACE_PREFIX, ORCHESTRATOR

PODS = selectors.equals(ORCHESTRATOR, KUBERNETES)
IN_A_NAMESPACE = selectors.has(NAMESPACE)


def pods(selector: LabelSelector) -> Selector:
    """The pods with these labels."""
    if selector.match_expressions:
        return selectors.all_of(PODS, selectors.from_label_selector(selector))
    return _pods_with(tuple(sorted(selector.match_labels.items())))


def pods_in(namespaces: LabelSelector, selector: LabelSelector | None = None) -> Selector:
    """The pods (None: all) of the namespaces with these labels."""
    spaces = selectors.from_label_selector(namespaces)
    spaces = IN_A_NAMESPACE if spaces.is_all else spaces.prefixed(NAMESPACE_PREFIX)
    return selectors.all_of(PODS if selector is None else pods(selector), spaces)


@lru_cache(maxsize=1 << 16)
def _pods_with(labels: tuple[tuple[str, str], ...]) -> Selector:
    return selectors.all_of(PODS, *(selectors.equals(key, value) for key, value in labels))
