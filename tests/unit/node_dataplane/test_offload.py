from __future__ import annotations

from typing import Literal

import pytest

from services.node_dataplane.offload import must_be_off


@pytest.mark.parametrize(
    ("mode", "release", "driver", "off"),
    [
        ("auto", "6.1.0-18-amd64", "virtio_net", False),
        ("auto", "5.4.0-150-generic", "virtio_net", True),
        ("auto", "4.18.0-513.el8", "ixgbe", True),
        ("auto", "5.15.0", "vmxnet3", True),
        ("on", "4.18.0", "vmxnet3", False),
        ("off", "6.1.0", "virtio_net", True),
    ],
)
def test_checksum_offload_is_off_where_it_is_known_to_be_wrong(
    mode: Literal["auto", "on", "off"], release: str, driver: str, off: bool
) -> None:
    assert must_be_off(mode, release, driver) is off
