"""Who reaches what: blocks, nodes and pools become routes, decided once for all nodes.

    reads   DESIRED  node, ippool, bgpconfiguration, bgppeer, bgpfilter
            BLOCKS   ipam.block.<cidr>
            ENDPOINTS wireguard.<node>, address.<node>
    writes  ROUTES   route.<cidr>, bgp.<node>, bgp.mesh.<node>   (while it holds lease.route_distribution)
                     pack.<family>.<part> of routes, the mesh, nodes, their addresses
            EVENTS   event.route.<what>._

`node_addresses` says where each node is reached, `claims` settles which of several overlapping blocks counts, `core`
turns the blocks that count into routes, `summaries` makes one of those of neighbouring blocks, `bgp` says who speaks
BGP with whom, `service` carries it all.
"""
