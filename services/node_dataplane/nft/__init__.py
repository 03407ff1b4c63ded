"""The one nftables table `inet tortie`: policy, anti-spoofing and outgoing NAT of this node's pods.

    endpoints, node settings, ATTACHMENT, DIRECTION, RULES, GROUP facts
        -> table.PolicyTable    the pure model: what the table shall hold, and what changed since the last flush
           directions           attachments with what they only name in its place
           groups               members of a group, counted over its segments
           references           pod -> rule group -> policy -> group: what is used, so what exists
           render, chains       rules and settings as nft text
           frame                the fixed part: hooks, dispatch, guards, NAT
           service_maps   service addresses, as elements; service_chains: what their packets meet
           layout, by_address   what of it stands for a pod: its link, or (policy only) its addresses
           link_groups          the number by which the kernel tells a pod's link
           sets                 the kinds of sets, their elements as bytes and as text
        -> transaction.Transaction   a value that prints as the exact nft script
        -> driver.NftDriver     commits it: elements by raw netlink (`encode`), the rest as text (`libnftables`)
           verify               what the kernel shows against what it should show
        bridge, bridge_driver   policy only: the table of family bridge that binds ports and addresses

Nothing outside the table is touched, and a restarted agent knows the table as its own by its name: it replaces the
whole of it in one transaction, so no packet sees the table half made and established flows go on.
"""
