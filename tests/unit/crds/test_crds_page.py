"""The table of docs/kubernetes.md is what `kubectl get` shows."""

from __future__ import annotations

from pathlib import Path

from services.kube_bridge.sources import CALICO
from tests.support.crd_server import definitions

PAGE = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()


def test_the_columns() -> None:
    table = PAGE.partition("<!-- crds -->")[2].partition("<!-- /crds -->")[0]
    lines = [line for line in table.splitlines() if line.startswith("|")][2:]
    told = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]
    shown = []
    for definition in definitions().values():
        spec = definition["spec"]
        if spec["group"] != CALICO:
            continue
        columns = spec["versions"][0]["additionalPrinterColumns"]
        always = [column["name"] for column in columns if not column.get("priority")]
        wide = [column["name"] for column in columns if column.get("priority")]
        assert (always[-2:], wide[-1]) == (["Accepted", "Age"], "Reason")
        short = ", ".join(f"`{name}`" for name in spec["names"].get("shortNames", ()))
        shown.append((f"`{spec['names']['kind']}`", spec["scope"], short, ", ".join(always[:-2]), ", ".join(wide[:-1])))
    assert told == shown
