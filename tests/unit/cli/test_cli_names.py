from __future__ import annotations

import pytest

from tortie.cli.errors import Misused
from tortie.cli.names import Target, targets


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pods"], [("pods", "", "ns")]),
        (["pod", "web"], [("pod", "web", "ns")]),
        (["pod", "web", "db"], [("pod", "web", "ns"), ("pod", "db", "ns")]),
        (["pods,nodes"], [("pods", "", "ns"), ("nodes", "", "ns")]),
        (["Node/master1"], [("Node", "master1", "ns")]),
        (["NetworkPolicy/test-web/deny"], [("NetworkPolicy", "deny", "test-web")]),
        (["pod/a/b", "node/c"], [("pod", "b", "a"), ("node", "c", "ns")]),
    ],
)
def test_names(words: list[str], expected: list[tuple[str, str, str]]) -> None:
    assert targets(words, "ns") == [Target(*each) for each in expected]


@pytest.mark.parametrize("words", [[], ["a//b"], ["a/b/c/d"], ["pods,"], ["pod", "a/b"], ["pod/a", "b"], ["/"]])
def test_what_names_nothing_is_misused(words: list[str]) -> None:
    with pytest.raises(Misused):
        targets(words, "ns")
