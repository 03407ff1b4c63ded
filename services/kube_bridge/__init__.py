"""What Kubernetes asks for, mirrored onto the bus, and what became of it, written back.

    reads   the Kubernetes API   `sources` lists what
            STATUS, POLICY (status), BLOCKS (service addresses)   what is reported back
    writes  DESIRED              by compare-and-swap, while it leads; only what Kubernetes says, marked as such
            the Kubernetes API   status of nodes, Services and Calico's kinds, Events, one Lease
            EVENTS, STATUS

    API server --lines, following--> mirror (bytes -> Seen) --> core (pure) --> Publication --> DESIRED
         ^                                                       |
         +---- reporting <---- conditions (pure) <---------------+---- feed (agents, compiled policy, addresses)

`client` speaks HTTP, `following` lists and watches one source, `cursor` decides what it asks for next, `identity` knows
which cluster it is, `discovery` which kinds are served, `election` holds the Lease.
"""
