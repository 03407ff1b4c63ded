"""How a service lives: settings, the bus, health, a bounded end. The only package that speaks NATS.

runner ── settings, logs, health, heartbeat
   └── bus ── session (one connection's life; the only module that knows the client library)
        ├── streams      made and checked
        ├── jetstream    the server's requests, spoken directly
        ├── feed ── ledger, parked, tombstones     snapshot, in sync, live
        ├── micro        requests answered
        ├── publication ── lease                   derived keys, kept as wanted, by one of several replicas
        └── pacing, embedded, metrics
"""
