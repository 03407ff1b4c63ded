"""A cluster in network namespaces: real kernel, real packets, the real services, nothing left behind.

    scenario   what a file says: nodes, pods, steps, expectations (pure)
    topology   nodes -> namespaces, cables, addresses, routes (pure)      fabric   makes and removes them
    processes  the bus, the services and the agents, each in its namespace
    cluster    one running lab: fabric + processes + resources + pods      pods     plug and unplug by the CNI plugin
    probes     packets from here to there, and whether an answer came      listeners  what answers them
    wire       what a packet looks like on a node's uplink                 kernel   routes, neighbours, fdb as read back
    checks     one expectation -> Verdict        engine   steps, deadlines        report   what a person sees
    keeper     owns a lab in the background, obeys a unix socket           demo     the guided tour

The process that owns a lab stays in the machine's own network namespace and steps into the others only to open
sockets (`netns.inside`); whatever it started dies with it.
"""
