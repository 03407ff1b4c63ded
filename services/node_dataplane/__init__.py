"""The agent of one node: it owns one kernel.

Reads    policy.attach.<own node>, and the policy.rules and policy.group that those name; route; desired ippool,
         felixconfiguration, node; one desired pod and namespace when a pod is plugged in; where it translates service
         addresses: desired service, endpointslice, ipam.service
Writes   endpoint.<own node>; status.node_dataplane.<own node>; event.node
Asks     rpc.ipam.assign, rpc.ipam.release
Serves   the CNI plugin on a unix socket

    core          pure: facts -> routes, tunnels, the node's own rules   (routes, tunnel, uplink, node_rules)
    fabric        drivers: routing, overlay, offload                     over netlink/
    enforcement   policy into the kernel                                 over nft/
    service_proxy service addresses, where settings say so          over nft/
    pods          the CNI's verbs                                        (cni_protocol, identity, links, endpoint_store)
    selfcheck     what somebody else broke                               (monitor)
    service       the shell that joins them
    found         policy-only mode: pods that others plugged in, with a shell of its own; it follows desired pod
"""
