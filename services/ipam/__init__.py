"""ipam owns every address: pools -> blocks claimed by nodes -> addresses held under handles.

Reads   `desired.ippool`, `desired.node`, `desired.namespace`; `ipam.block`, `ipam.affinity`, `ipam.handle`
Writes  `ipam.block`, `ipam.affinity`, `ipam.handle`, every key by compare-and-swap; `event.ipam`
Serves  `rpc.ipam.assign`, `rpc.ipam.release`

    cidr -> block, pools -> desired, ledger -> draft -> assign, release, affinity -> core | service
    numbers  arithmetic      what is so        a change    how it comes about        pure | asyncio

Any number of replicas may work at once, even for the same node: only the sequences of the keys decide whose change
counts.
"""
