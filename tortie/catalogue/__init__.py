"""What is said on the bus, for those who listen: a page for people, an AsyncAPI document, a snapshot to compare with.

    subjects.FAMILIES, RPCS + Structs + texts under fields --shapes--> events_page --> docs/events.md
    happenings.ALL                                                 --> asyncapi    --> docs/asyncapi.yaml
    samples: real messages, encoded and decoded again              --> snapshot    --> docs/schemas/<version>.json
                                                                       compare     --> what a release may not change

Pure: everything follows from the code. `make docs` writes the files, a test sees that they are up to date.
"""
