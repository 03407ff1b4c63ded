"""The names of every tunnel device that may be ours."""

from __future__ import annotations

from services.node_dataplane import ipip, tunnel, wireguard

NAMES = (*tunnel.DEVICES.values(), ipip.DEVICE, *wireguard.DEVICES.values())
