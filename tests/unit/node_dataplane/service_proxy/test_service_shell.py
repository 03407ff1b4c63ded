"""Service addresses are there when somebody asked for them and the kernel can do it."""

from __future__ import annotations

import pytest

from bus_schemas.ids import NodeName
from chassis.errors import SettingsError
from chassis.health import Health
from services.node_dataplane.nft.errors import NftError
from services.node_dataplane.service_proxy import shell
from services.node_dataplane.settings import Settings

NODE = NodeName("node1")


def test_nobody_asked() -> None:
    assert shell.service_addresses(Settings(), NODE, Health()) is None


def test_a_kernel_that_cannot_is_named_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(script: str) -> None:
        assert "numgen" in script
        raise NftError("Could not process rule: No such file or directory")

    monkeypatch.setattr(shell, "takes", refused)
    health = Health()
    assert shell.service_addresses(Settings(service_addresses=True), NODE, health) is None
    assert health.ready
    assert "its kernel lacks what that needs: Could not process rule" in health.notes[shell.CAUSE]


def test_node_port_addresses_that_say_nothing_are_refused() -> None:
    with pytest.raises(SettingsError, match="TORTIE_NODE_PORT_ADDRESSES: 'eth0' does not appear to be"):
        Settings(node_port_addresses="eth0")
