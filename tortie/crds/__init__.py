"""CustomResourceDefinitions (apiextensions.k8s.io/v1) for the kinds of Calico's, made of the Structs that manifests are
read into.

    bus_schemas.resources --structural--> a schema --definition--> a CustomResourceDefinition --files--> k8s/crds
                              ^                          ^
             values fields passed: what the readers        kinds: short names, columns
             of bus_schemas.manifests check;
             rules alternatives: what two fields
             have to do with each other

A schema says what a server can check of one object by itself: types, words, ranges, forms, and by CEL what two fields
have to do with each other. It never refuses what `tortie apply` accepts (but for fields that nobody knows), and what
the server writes into an object never changes its meaning. What it cannot say is said by the bridge, in conditions.

Rules of the server that are kept: structural schemas (apiextensions, `schema/validation.go`), 10,000,000 units of
estimated cost a CEL rule and 100,000,000 a definition, and no CEL library that server v1.30 lacks for new definitions
(so none of `ip()` and `cidr()`, which they have from v1.31 on).
"""
