"""The CustomResourceDefinitions, and the files that they are in: one each, with a kustomization for each group and one
for both."""

from __future__ import annotations

from typing import Any

from bus_schemas.manifests import dump
from services.kube_bridge.sources import CALICO, CALICO_STORED, SOURCES, Source
from tortie.crds.kinds import ENDING, LOOKS, Column
from tortie.crds.structural import of_kind

GROUPS = (CALICO, CALICO_STORED)
KUSTOMIZATION = "kustomization.yaml"

_MADE = "# Made by `make docs` (tortie schema crds) from bus_schemas. Do not edit.\n"


def sources(group: str) -> list[Source]:
    """The kinds of a group, as the bridge reads them."""
    return [source for source in SOURCES if source.group == group]


def definition(source: Source) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    looks = LOOKS[source.resource]
    singular = source.kind.lower()
    names: dict[str, Any] = {
        "kind": source.kind,
        "listKind": f"{source.kind}List",
        "plural": source.plural,
        "singular": singular,
    }
    stored = source.group == CALICO_STORED
    if looks.short_names and not stored:
        names["shortNames"] = list(looks.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": source.name, "labels": {"app.kubernetes.io/part-of": "tortie"}},
        "spec": {
            "group": source.group,
            "names": names,
            "scope": "Namespaced" if source.resource.NAMESPACED else "Cluster",
            "versions": [
                {
                    "name": source.version,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [_column(column) for column in (*looks.columns, *ENDING)],
                    "subresources": {"status": {}},
                    "schema": {"openAPIV3Schema": of_kind(source.resource, stored=stored)},
                }
            ],
        },
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        **({"priority": 1} if column.wide else {}),
    }


def files(groups: tuple[str, ...] = GROUPS) -> dict[str, str]:
    """By path below the directory."""
    found: dict[str, str] = {}
    for group in groups:
        made = {f"{source.plural}.yaml": _MADE + dump(definition(source)) for source in sources(group)}
        found |= {f"{group}/{name}": text for name, text in made.items()}
        found[f"{group}/{KUSTOMIZATION}"] = _kustomization(resources=list(made))
    if len(groups) > 1:
        found[KUSTOMIZATION] = _kustomization(bases=list(groups))
    return found


def text(groups: tuple[str, ...] = GROUPS) -> str:
    """All of them, as one text."""
    return "---\n".join(dump(definition(source)) for group in groups for source in sources(group))


def _kustomization(**of: list[str]) -> str:
    """`resources`: files; `bases`: directories, which the kustomize of older kubectl does not take for resources."""
    return _MADE + dump({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", **of})
