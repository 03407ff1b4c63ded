"""Manifests: the YAML and JSON that people write <-> resources.

    text --documents--> plain values --reading: envelope, one module a kind--> Accepted | Rejected
    resource --writing--> manifest, YAML

Existing manifests of Kubernetes and Calico keep their meaning. What would change it is refused: a misspelt field, a
field that nothing here carries out, a value that Kubernetes or Calico would refuse. All faults of all documents are
found in one go, each with its path.

    documents   text -> values: YAML, JSON, several documents, duplicate keys, the traps of YAML
    fields      taking a value apart with its path; unknown fields
    names selections addresses ports numbers      the values that manifests are made of
    envelope    metadata, API groups, how Calico stores
    core_kinds node pools network_policy calico_policy calico_rules configuration      the kinds
    existing    rules between objects;   outcomes   Accepted, Rejected, Fault
"""

from __future__ import annotations

from bus_schemas.manifests.existing import validate_against
from bus_schemas.manifests.outcomes import Accepted, Fault, Read, Rejected
from bus_schemas.manifests.reading import read, read_object
from bus_schemas.manifests.writing import dump, to_manifest, to_yaml

__all__ = [
    "Accepted",
    "Fault",
    "Read",
    "Rejected",
    "dump",
    "read",
    "read_object",
    "to_manifest",
    "to_yaml",
    "validate_against",
]
