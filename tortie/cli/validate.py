"""`tortie validate`: what the api would refuse, found without a cluster.

Each file is judged together with the others of the same call, as if all of them were applied at once to nothing.
"""

from __future__ import annotations

import sys

from bus_schemas.lint import Landscape, lint
from bus_schemas.manifests import Accepted, Fault, Rejected, read, validate_against
from tortie.cli import sources
from tortie.cli.errors import Misused, Refused
from tortie.cli.options import Files, Recursive


def command(filename: Files = None, recursive: Recursive = False) -> None:
    """Exit code 1, with file, line, path and reason, when a document is wrong."""
    if not filename:
        raise Misused("validate needs manifests: -f FILE, -f DIRECTORY or -f -")
    faults: list[tuple[str, Fault]] = []
    accepted: list[tuple[str, Accepted]] = []
    documents = 0
    for source in sources.read(filename, recursive=recursive):
        for outcome in read(source.text, source.name):
            documents += 1
            if isinstance(outcome, Rejected):
                faults += [(outcome.display, fault) for fault in outcome.faults]
            else:
                accepted.append((source.name, outcome))
                for warning in outcome.warnings:
                    print(f"warning: {source.name}: {outcome.resource.display}: {warning}", file=sys.stderr)
    for position, (name, outcome) in enumerate(accepted):
        earlier = [other.resource for _, other in accepted[:position]]
        display = outcome.resource.display
        for fault in validate_against(outcome.resource, earlier):
            faults.append((display, Fault(outcome.document, fault.path, fault.reason, source=name)))
    if not documents:
        raise Misused("there is no document in " + ", ".join(filename))
    if faults:
        wrong = len({(fault.source, fault.document) for _, fault in faults})
        details = [_describe(display, fault) for display, fault in faults]
        raise Refused(f"{wrong} of {documents} documents are wrong", details)
    resources = [outcome.resource for _, outcome in accepted]
    for finding in lint(resources, Landscape.from_resources(resources, cluster=False)):
        print(f"{finding.severity}: {finding.object}: {finding.text}", file=sys.stderr)
    print(f"{documents} document{'s are' if documents > 1 else ' is'} right")


def _describe(display: str, fault: Fault) -> str:
    place = f"{fault.source}:{fault.line}" if fault.line else fault.source
    return ": ".join(filter(None, (f"{place} document {fault.document + 1}", display, fault.path, fault.reason)))
