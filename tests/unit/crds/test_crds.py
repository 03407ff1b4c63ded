"""The CustomResourceDefinitions: what a server asks of them, and that those in k8s/crds are they."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from bus_schemas.resources import KINDS
from services.kube_bridge.sources import CALICO, CALICO_STORED, SOURCES
from tests.support import cel_costs, structural_schema
from tests.support.crd_server import definitions
from tests.support.kubernetes_types import misfits
from tortie.cli.main import main
from tortie.crds import alternatives, fields, passed, rules
from tortie.crds.definition import files, text

ROOT = Path(__file__).resolve().parents[3]
EVERY = [pytest.param(one, id=one["metadata"]["name"]) for one in definitions().values()]
MAX_ANNOTATION = 256 * 1024
"""What `kubectl apply` without --server-side keeps of an object in an annotation."""


def test_what_is_committed_is_what_is_made() -> None:
    directory = ROOT / "k8s" / "crds"
    found = {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}
    assert found == files(), "`make docs` writes them"


@pytest.mark.parametrize("definition", EVERY)
def test_a_server_takes_it(definition: dict[str, Any]) -> None:
    assert structural_schema.faults(definition) == []
    assert list(misfits(definition, "V1CustomResourceDefinition")) == []
    assert len(json.dumps(definition)) < MAX_ANNOTATION
    spent = list(cel_costs.estimates(definition))
    assert max((one.cost for one in spent), default=0) <= cel_costs.MAX_RULE / 100
    assert sum(one.cost for one in spent) <= cel_costs.MAX_DEFINITION / 100


def test_there_is_one_for_every_kind_that_the_bridge_reads_from_calico() -> None:
    assert set(definitions()) == {(s.api_version, s.kind) for s in SOURCES if s.group in (CALICO, CALICO_STORED)}
    ours = {kind for kind in KINDS.values() if kind.API_VERSION == "projectcalico.org/v3" and kind.KIND != "Node"}
    for group in (CALICO, CALICO_STORED):
        assert {s.resource for s in SOURCES if s.group == group} == ours


def test_names() -> None:
    short: list[str] = []
    for source in SOURCES:
        definition = definitions().get((source.api_version, source.kind))
        if definition is None:
            continue
        spec = definition["spec"]
        assert spec["names"]["plural"] == source.plural
        assert (spec["scope"] == "Namespaced") is source.resource.NAMESPACED
        found = spec["names"].get("shortNames", [])
        assert found == [] or source.group == CALICO
        short += found
    assert len(set(short)) == len(short)


def test_every_constraint_is_one_of_a_field_that_there_is() -> None:
    """A field that was renamed would lose its constraints without a sound."""
    texts = json.dumps(list(definitions().values()))
    for table in (fields.FIELDS, passed.PASSED):
        for struct, constraints in table.items():
            for name in constraints:
                assert f'"{name}": {{' in texts, (struct, name)
    for struct, name in (*fields.NOT_DEFAULTED, *rules.ITEM_RULES, *alternatives.ITEM_SCHEMAS):
        assert name in {field.encode_name for field in _struct_fields(struct)}, (struct, name)
    for struct, constraints in fields.FIELDS.items():
        assert constraints.keys() <= {field.encode_name for field in _struct_fields(struct)}, struct


def _struct_fields(struct: type) -> Any:
    return msgspec.structs.fields(struct)


def test_all_defaults() -> None:
    """Whoever adds one asks what it does to an object that means something else without it."""
    found: dict[str, set[str]] = {}

    def look(schema: dict[str, Any], path: str, kind: str) -> None:
        if "default" in schema:
            found.setdefault(f"{path}: {schema['default']}", set()).add(kind)
        for name, field in schema.get("properties", {}).items():
            look(field, f"{path}.{name}", kind)
        if "items" in schema:
            look(schema["items"], f"{path}[]", kind)

    for (_, kind), definition in definitions().items():
        look(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], "", kind)
    policies = {"NetworkPolicy", "GlobalNetworkPolicy", "StagedNetworkPolicy", "StagedGlobalNetworkPolicy"}
    staged = {"StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"}
    assert found == {
        ".spec.vxlanMode: Never": {"IPPool"},
        ".spec.ipipMode: Never": {"IPPool"},
        ".spec.assignmentMode: Automatic": {"IPPool"},
        ".spec.tier: default": policies,
        ".spec.stagedAction: Set": staged,
        ".spec.ingress[].ports[].protocol: TCP": {"StagedKubernetesNetworkPolicy"},
        ".spec.egress[].ports[].protocol: TCP": {"StagedKubernetesNetworkPolicy"},
    }


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl (Debian: kubernetes-client)")
def test_kustomize_finds_all_of_them() -> None:
    """Those of both groups, each by the kustomization of its own."""
    built = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "k8s" / "crds")], check=True, capture_output=True, text=True
    )
    found = list(yaml.load_all(built.stdout, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    assert len(found) == 34
    assert sorted(found, key=_name) == sorted(definitions().values(), key=_name)


def _name(definition: dict[str, Any]) -> str:
    name: str = definition["metadata"]["name"]
    return name


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "crds", "--group", CALICO]) == 0
    assert capsys.readouterr().out == text((CALICO,))
    assert main(["schema", "crds", "--group", "calico"]) != 0
    assert "--group must be" in capsys.readouterr().err
    (tmp_path / CALICO).mkdir()
    (tmp_path / CALICO / "gone.yaml").write_text("of a kind that is no more")
    assert main(["schema", "crds", "--write", str(tmp_path)]) == 0
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.yaml")} == set(files())
