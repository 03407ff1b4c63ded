"""Whom a pod sends everything to: addresses that every node answers for on every pod's link. Pure."""

from __future__ import annotations

NODE_MAC = "ee:ee:ee:ee:ee:ee"
GATEWAY4 = "169.254.1.1"
GATEWAY6 = "fe80::ecee:eeff:feee:eeee"
"""The link-local address that NODE_MAC gives by RFC 4291, appendix A."""
