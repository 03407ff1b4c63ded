"""The door for people and programs: REST over the desired state, its validation, and views of the rest.

    reads   DESIRED, BLOCKS, ENDPOINTS, STATUS   mirrored in memory (`core`), so that reads survive the bus
            EVENTS                               streamed to whoever subscribes
    writes  DESIRED                              by compare-and-swap, one atomic batch a request
            EVENTS, STATUS
    asks    rpc.ipam.release                     when an operator gives an address back

    request -> http (what was asked) -> core.decide (pure: accept or refuse, which writes) -> store (commit) -> answer

`kinds` knows the words for kinds, `labels` the label selector of lists, `watch` the differences that a watcher sees,
`views` the reports about components, `ipam_views` those about addresses, `split` one pool into several.
"""
