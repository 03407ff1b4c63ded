"""The tables of docs/kubernetes.md are what the code says: whoever writes roles and manifests reads them there."""

from __future__ import annotations

from pathlib import Path

from chassis.settings import ServiceSettings, describe
from services.kube_bridge.settings import Settings
from services.kube_bridge.sources import RULES

PAGE = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()


def rows(name: str) -> list[list[str]]:
    table = PAGE.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_rules() -> None:
    told = {
        (group.strip("`").strip('"'), resource.strip("` "), tuple(verbs.split(", ")))
        for group, resources, verbs, _ in rows("rules")
        for resource in resources.split(",")
    }
    assert told == {(rule.group, rule.resource, rule.verbs) for rule in RULES}


def test_the_settings() -> None:
    common = {setting.variable for setting in describe(ServiceSettings)}
    told = [(variable.strip("`"), default, doc) for variable, default, doc in rows("settings")]
    assert told == [
        (setting.variable, setting.default or "empty", " ".join(setting.doc.split()))
        for setting in describe(Settings)
        if setting.variable not in common
    ]
