"""IP protocols by number, as policy tells them apart (the registry of RFC 5237)."""

TCP, UDP, SCTP, DCCP, UDPLITE = 6, 17, 132, 33, 136
ICMP, ICMPV6 = 1, 58
WITH_PORTS = frozenset({TCP, UDP, SCTP, DCCP, UDPLITE})
"""Protocols whose header begins with a source and a destination port."""
