"""Who reaches what: blocks, nodes and pools become one route each, decided once for all nodes.

    reads   DESIRED  node, ippool
            BLOCKS   ipam.block.<cidr>
            ENDPOINTS wireguard.<node>
    writes  ROUTES   route.<cidr>            (while it holds lease.route_distribution)
            EVENTS   event.route.<what>._

`claims` settles which of several overlapping blocks counts, `core` turns the blocks that count into routes, `service`
carries them.
"""
