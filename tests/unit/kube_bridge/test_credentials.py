"""Without usable credentials the bridge does not begin, and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from chassis.errors import CannotServe
from services.kube_bridge.client import Client


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no file"),
        ("", "no cluster is known from"),
        ("{[", "no cluster is known from"),
        ("current-context: x\ncontexts: []\n", "no cluster is known from"),
        ("- a list", "no cluster is known from"),
    ],
    ids=["absent", "empty", "no YAML", "no context", "no mapping"],
)
async def test_a_kubeconfig_that_is_none(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(CannotServe, match=said) as refused:
        async with Client.open(str(path)):
            pass
    assert str(path) in str(refused.value)
