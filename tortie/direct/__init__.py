"""Without an api: Kubernetes' own API server asked directly, for the length of one command.

    command --unix socket--> the api's own handlers --> Store --> DirectBus --> API server
                                                        (in place of the bus)

It is the api itself, in a thread of the command. In the place of the bus stands one that takes what is desired from
Kubernetes, as the bridge reads it, and writes there; what policies mean is compiled here, when it is asked for. So a
command finds the same words, the same validation and the same errors. What only the bus knows (who has which address,
sessions, events, who is alive) it cannot know: `scope` says which paths these are.
"""
