"""ipam owns every address: pools -> blocks claimed by nodes -> addresses held under handles.

Reads   `desired.ippool`, `desired.node`, `desired.namespace`; `ipam.block`, `ipam.affinity`, `ipam.handle`,
        `ipam.epoch`, `ipam.candidate`; with the lease also `endpoint`, `holding`, `status` of agents
Writes  `ipam.block`, `ipam.affinity`, `ipam.handle`, `ipam.epoch`, `ipam.candidate`, every key by compare-and-swap;
        `event.ipam`; takes away the `endpoint` and `holding` of a deleted node whose agent is dead
Serves  `rpc.ipam.assign`, `rpc.ipam.release`

    cidr -> block, pools -> desired, ledger -> draft -> assign, release, affinity -> core | service
    numbers  arithmetic      what is so        a change    how it comes about        pure | asyncio
    words, recovery, collect -> keeper, collector -> steward      what agents say, and what follows from it

Any number of replicas may work at once, even for the same node: only the sequences of the keys decide whose change
counts.
"""
