"""The node's private keys on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.node_dataplane.errors import StoreError
from services.node_dataplane.wireguard import read_key
from services.node_dataplane.wireguard_key import FILES, clamped, private_key


def test_a_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    made = private_key(tmp_path, 4)
    path = tmp_path / FILES[4]
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path.read_text().strip()) == made
    assert private_key(tmp_path, 4) == made
    assert private_key(tmp_path, 6) != made
    assert sorted(found.name for found in tmp_path.iterdir()) == sorted(FILES.values())


def test_a_key_is_one_of_the_curve() -> None:
    for random in (bytes(32), b"\xff" * 32):
        key = clamped(random)
        assert len(key) == 32
        assert not key[0] & 7
        assert key[31] & 192 == 64
        assert key[1:31] == random[1:31]


@pytest.mark.parametrize("text", ["", "nonsense", "AAAA"])
def test_a_file_that_holds_no_key_is_left_alone_and_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILES[4]
    path.write_text(text)
    with pytest.raises(StoreError, match="not a WireGuard key"):
        private_key(tmp_path, 4)
    assert path.read_text() == text
