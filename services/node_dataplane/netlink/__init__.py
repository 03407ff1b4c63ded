"""The kernel's configuration protocol, packed by hand: pure encoders, and one long-lived socket per protocol.

    framing   messages and attributes, shared by rtnetlink and nfnetlink
    wire      the socket that carries them
    conntrack ctnetlink messages: what is remembered of connections
    rtnl      rtnetlink messages: links, addresses, routes, neighbours, forwarding entries
    readback  what rtnetlink dumps say, as the rows that the drivers compare

Hot paths only: what happens per pod, per route and per set member. See FACTS in the design for what it saves.
"""
