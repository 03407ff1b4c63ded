"""BGP of this node, spoken by a stock BIRD 2 in a process of its own.

Speaker, mesh members (bus) --> record --> render --> bird.conf --> driver --control socket--> BIRD --> kernel
BIRD --control socket--> sessions --> health, events, metrics, `sessions.<node>` (bus)
"""
