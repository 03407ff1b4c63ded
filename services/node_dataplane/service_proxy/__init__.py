"""Service addresses on this node: what kube-proxy does, in the agent's own table.

    Service, EndpointSlice, ServiceAddresses facts, the node's addresses
        -> core.ServiceProxy    pure: which frontends (address, protocol, port) there are, and where each leads
           endpoints            which endpoints of a service port count, and in what order
           claims               several services that want the same frontend
        -> nft.service_maps     frontends as elements and chains of the table (nft.service_chains)
           stale                connections that lead to an endpoint that is no longer one
           health_ports         healthCheckNodePort, over HTTP

An optional part of the agent (`TORTIE_SERVICE_ADDRESSES`).
"""
