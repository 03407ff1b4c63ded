"""`tortie policy test`: offline verdicts, of short files and of the lab's scenarios."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tortie.cli.main import main
from tortie.lab.errors import ScenarioFault
from tortie.policy import cases, judging

SCENARIOS = Path(__file__).parents[4] / "shared" / "scenarios"
ONLY_POLICY = ("01", "02", "03", "04", "05", "06")
"""Their every line is about policy."""

SHORT = """
pods:
  shop/web: {labels: {app: web}}
  shop/db: {labels: {app: db}, ports: {sql: tcp/5432}}
policies: |
  apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {name: db, namespace: shop}
  spec:
    podSelector: {matchLabels: {app: db}}
    ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: sql}]}]
allow: [shop/web -> shop/db tcp/5432, node:node1 -> shop/db, shop/db -> ip:203.0.113.7 udp/53]
deny: [shop/web -> shop/db tcp/80, other/client -> shop/db tcp/5432]
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def short(tmp_path: Path) -> Path:
    path = tmp_path / "db.yaml"
    path.write_text(SHORT)
    return path


@pytest.mark.parametrize(
    "path",
    sorted(SCENARIOS.glob("*.yaml")) or [pytest.param(None, marks=pytest.mark.skip(reason=f"{SCENARIOS} is absent"))],
    ids=lambda path: path.stem if path else "none",
)
def test_scenarios_agree_with_the_lab(path: Path) -> None:
    result = judging.judge(cases.read(path.read_text(), str(path)), str(path))
    if "is not supported yet" in result.fault:
        pytest.skip(result.fault)
    assert result.passed, (result.fault, result.failures)
    assert all(check.outcome == "ok" for check in result.checks)
    assert bool(result.not_judged) == (path.name[:2] not in ONLY_POLICY)


OWN = sorted((Path(__file__).parents[2] / "system" / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_our_scenarios_agree_with_the_lab(path: Path) -> None:
    result = judging.judge(cases.read(path.read_text(), str(path)), str(path))
    assert result.passed, (result.fault, result.failures)
    unjudged = [check.traffic for check in result.checks if check.outcome == "not judged"]
    assert all("node:node1" in traffic or "-> ip:10." in traffic for traffic in unjudged)
    assert bool(unjudged) == (path.stem in ("host-endpoints", "service-translation"))


def test_a_short_file_holds(short: Path, capsys: Capture) -> None:
    assert main(["policy", "test", str(short)]) == 0
    out = capsys.readouterr().out
    assert "ok    allow shop/web -> shop/db tcp/5432" in out
    assert "5 checks in 1 file: 5 ok, 0 failed" in out


def test_a_line_that_does_not_hold_shows_its_path(short: Path, capsys: Capture, tmp_path: Path) -> None:
    short.write_text(SHORT.replace("deny: [", "deny: [shop/web -> shop/db tcp/5432, "))
    report = tmp_path / "junit.xml"
    assert main(["policy", "test", str(short), "--junit", str(report)]) == 1
    out = capsys.readouterr().out
    assert "FAIL  deny  shop/web -> shop/db tcp/5432: " in out
    assert 'NetworkPolicy/shop/db ingress[0]: allow TCP from `app == "web"` in namespace shop to port sql' in out
    (suite,) = ElementTree.parse(report).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("6", "1")
    assert main(["policy", "test", str(short), "-o", "json"]) == 1
    (answer,) = json.loads(capsys.readouterr().out)
    assert [c["traffic"] for c in answer["checks"] if c["outcome"] == "FAIL"] == ["shop/web -> shop/db tcp/5432"]


def test_manifests_beside_the_file(tmp_path: Path, capsys: Capture) -> None:
    policies = SHORT.partition("policies: |\n")[2].partition("allow:")[0]
    (tmp_path / "policy.yaml").write_text(policies.replace("\n  ", "\n").removeprefix("  "))
    test = tmp_path / "test.yaml"
    test.write_text("pods: {shop/db: {labels: {app: db}}}\ndeny: [other/client -> shop/db tcp/5432]\n")
    assert main(["policy", "test", str(test)]) == 1
    assert main(["policy", "test", str(test), "-f", str(tmp_path / "policy.yaml")]) == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "neither a scenario nor pods"),
        ("pods: {a/b: {}}\nallow: [a/b > a/c]", "traffic is written"),
        ("pods: {a/b: {color: red}}\nallow: [a/b -> a/b]", "color"),
    ],
)
def test_a_file_that_makes_no_sense_is_2(text: str, says: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "x.yaml").write_text(text)
    assert main(["policy", "test", str(tmp_path / "x.yaml")]) == 2
    assert says in capsys.readouterr().err
    with pytest.raises(ScenarioFault):
        cases.read(text, "x")


def test_a_wrong_policy_fails_the_file(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("pods: {a/b: {}}\npolicies: '{kind: NetworkPolicy}'\nallow: [a/b -> a/b]\n")
    assert main(["policy", "test", str(path)]) == 1
    assert "apiVersion: is required" in capsys.readouterr().out


def test_the_example_of_the_documentation_holds() -> None:
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
    example = page.partition("```yaml\n")[2].partition("```")[0]
    result = judging.judge(cases.read(example, "docs"), "docs")
    assert result.passed
    assert len(result.checks) == 3
