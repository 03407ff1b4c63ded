"""policy_compiler owns meaning: policies in, groups of members, rules, directions and attachments out.

    reads    desired.namespace|serviceaccount|node|tier|pod|endpointslice|networkset|globalnetworkset|hostendpoint,
             desired.<every kind of policy>, desired.profile, endpoint.>
    writes   policy.group|rules|direction|attach|host|status (in that order, removals in the reverse), event.policy.*
    holds    lease.policy_compiler-<partition> of each eighth of the keys that it writes (who holds none computes and
             waits), and lease.policy_compiler-at-<itself> while it could write

`core` is the whole service without the bus; its constructor draws the flow. `service` moves the bytes.
"""
