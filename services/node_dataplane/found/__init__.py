"""Policy-only mode: addresses, links and routes are somebody else's, and only policy is ours (decision 41).

bus --Pod, Node of this node--+
kernel --links, and addresses  +--> residents   pure: which pod has which link, and what is closed
         at their far ends-----+        |
         (veths)                        +--> enforcement          table `inet tortie`, by address (nft/by_address)
                                        +--> nft/bridge           table `bridge tortie`, by port
                                        +--> announcements        ENDPOINT on the bus
agent           the shell that joins them, in place of `service.Agent`
filtering       whether bridged packets come through the tables at all (br_netfilter)
"""
