"""kubectl's own options in the command line of its plugin, and whom a command asks."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tortie.cli import way
from tortie.cli.errors import Misused
from tortie.cli.kubectl import namespace_of, taken


@pytest.mark.parametrize(
    ("line", "rest", "variables"),
    [
        ("get pods", "get pods", {}),
        ("get pods --context a", "get pods", {"TORTIE_KUBE_CONTEXT": "a"}),
        ("--context=a --kubeconfig f get pods", "get pods", {"TORTIE_KUBE_CONTEXT": "a", "TORTIE_KUBECONFIG": "f"}),
        ("-n shop get pods", "get pods", {"TORTIE_NAMESPACE": "shop"}),
        ("--namespace=shop get pods", "get pods", {"TORTIE_NAMESPACE": "shop"}),
        ("get pods -n shop", "get pods -n shop", {}),
        ("events tail -n 5", "events tail -n 5", {}),
        ("pod run a -- sh --context x", "pod run a -- sh --context x", {}),
    ],
)
def test_what_is_kubectls_own(line: str, rest: str, variables: dict[str, str]) -> None:
    assert taken(line.split()) == (variables, rest.split())


@pytest.mark.parametrize("line", ["get pods --context", "--kubeconfig=", "-n"])
def test_an_option_without_its_value(line: str) -> None:
    with pytest.raises(Misused, match="needs a value"):
        taken(line.split())


def test_the_namespace_is_that_of_the_context(tmp_path: Path) -> None:
    contexts = [{"name": "a", "context": {"namespace": "shop"}}, {"name": "b", "context": {}}]
    (tmp_path / "one").write_text(json.dumps({"current-context": "a"}))
    (tmp_path / "two").write_text(json.dumps({"contexts": contexts}))
    (tmp_path / "broken").write_text("{")
    both = f"{tmp_path}/one:{tmp_path}/two"
    assert namespace_of(both, "") == "shop"
    assert namespace_of(both, "b") == ""
    assert namespace_of(f"{tmp_path}/broken:{tmp_path}/absent", "") == ""


def test_whom_a_command_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORTIE_API", "TORTIE_KUBECONFIG", "TORTIE_KUBE_CONTEXT", "KUBECONFIG", way.PLUGIN):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as api:
        monkeypatch.setattr(way, "DEFAULT_ADDRESS", f"http://127.0.0.1:{api.getsockname()[1]}")
        monkeypatch.setenv("KUBECONFIG", "/k")
        assert isinstance(way.chosen(), way.Api), "an api that is there comes first"
        monkeypatch.setenv(way.PLUGIN, "1")
        assert isinstance(way.chosen(), way.Kubernetes), "but not for kubectl's plugin"
        monkeypatch.delenv(way.PLUGIN)
    assert way.chosen() == way.Kubernetes("/k", "", f"KUBECONFIG is set, and no api is at {way.DEFAULT_ADDRESS}")
    monkeypatch.setenv("TORTIE_API", "unix:/a")
    assert way.chosen() == way.Api("unix:/a", "as TORTIE_API or --api says")
    assert way.chosen("unix:/b").address == "unix:/b"  # type: ignore[union-attr]
    monkeypatch.delenv("TORTIE_API")
    monkeypatch.delenv("KUBECONFIG")
    found = way.chosen()
    assert found == way.Api(way.DEFAULT_ADDRESS, "the default"), "~/.kube/config is not taken unasked"
