"""Resources as the commands that judge them want them: of manifest files, and of the api."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bus_schemas.manifests import Accepted, Rejected, read, read_object
from bus_schemas.resources import Resource
from tortie.cli import sources
from tortie.cli.client import Client, segment
from tortie.cli.errors import CommandError


class WrongManifests(CommandError):
    """Nothing can be judged: not the answer "no"."""

    exit_code = 2


def of_files(names: Sequence[str], *, recursive: bool) -> list[Resource]:
    """Raises WrongManifests with every fault."""
    outcomes = [o for source in sources.read(names, recursive=recursive) for o in read(source.text, source.name)]
    faults = [str(fault) for outcome in outcomes if isinstance(outcome, Rejected) for fault in outcome.faults]
    if faults:
        raise WrongManifests("the manifests are wrong", faults)
    return [outcome.resource for outcome in outcomes if isinstance(outcome, Accepted)]


def of_api(client: Client, kinds: Iterable[type[Resource]]) -> list[Resource]:
    """Everything of these kinds. A word of the api may mean two kinds, so each object is kept once."""
    wanted = set(kinds)
    found: dict[tuple[type[Resource], tuple[str, str]], Resource] = {}
    for kind in wanted:
        for item in client.get(f"/v1/{segment(kind.TOKEN)}")["items"]:
            outcome = read_object(item)
            if isinstance(outcome, Accepted) and type(outcome.resource) in wanted:
                found[type(outcome.resource), outcome.resource.key] = outcome.resource
    return [found[key] for key in sorted(found, key=lambda key: (key[0].TOKEN, key[1]))]
