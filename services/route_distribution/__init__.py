"""Who reaches what: blocks, nodes and pools become one route each, decided once for all nodes.

    reads   DESIRED  node, ippool, bgpconfiguration, bgppeer, bgpfilter
            BLOCKS   ipam.block.<cidr>
            ENDPOINTS wireguard.<node>
    writes  ROUTES   route.<cidr>, bgp.<node>, bgp.mesh.<node>   (while it holds lease.route_distribution)
            EVENTS   event.route.<what>._

`claims` settles which of several overlapping blocks counts, `node_addresses` which of several nodes has an address,
`core` turns the blocks that count into routes, `bgp` says who speaks BGP with whom, `service` carries it all.
"""
