"""`kubectl tortie ...`: the command as a plugin of kubectl, which runs whatever is called `kubectl-...` on PATH
(https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/) and hands it all arguments.

It takes kubectl's `--context` and `--kubeconfig` anywhere, `--namespace` before the command and where the command has
it, and without one the namespace of the context. It asks Kubernetes; the api where TORTIE_API says so and no cluster is
named.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tortie.cli import way
from tortie.cli.errors import CommandError, Misused
from tortie.cli.main import main as tortie

ANYWHERE = {"--context": "TORTIE_KUBE_CONTEXT", "--kubeconfig": "TORTIE_KUBECONFIG"}
BEFORE = {"--namespace": "TORTIE_NAMESPACE", "-n": "TORTIE_NAMESPACE"}


class Taken(NamedTuple):
    variables: dict[str, str]
    rest: list[str]
    """The arguments of `tortie`."""


def taken(arguments: Sequence[str]) -> Taken:
    """kubectl's own options, out of a command line. Raises Misused."""
    variables: dict[str, str] = {}
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        option, equals, value = word.partition("=")
        variable = ANYWHERE.get(option) or ("" if rest else BEFORE.get(option, ""))
        if not variable:
            rest.append(word)
            continue
        if not equals:
            value = next(words, "")
        if not value:
            raise Misused(f"{option} needs a value")
        variables[variable] = value
    return Taken(variables, rest)


def namespace_of(kubeconfig: str, context: str) -> str:
    """Of the context; empty: it has none, or cannot be read (the command will say why)."""
    documents = [_document(path) for path in kubeconfig.split(os.pathsep)]
    name = context or next((d["current-context"] for d in documents if d.get("current-context")), "")
    for document in documents:
        for entry in document.get("contexts") or ():
            if isinstance(entry, Mapping) and entry.get("name") == name:
                return str((entry.get("context") or {}).get("namespace") or "")
    return ""


def _document(path: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def main(arguments: Sequence[str] | None = None) -> int:
    try:
        variables, rest = taken(sys.argv[1:] if arguments is None else arguments)
    except CommandError as error:
        print(f"tortie: {error}", file=sys.stderr)
        return error.exit_code
    if variables.keys() & set(ANYWHERE.values()):
        os.environ.pop("TORTIE_API", None)  # a cluster was named, here and now
    os.environ.update(variables)
    os.environ[way.PLUGIN] = "1"
    if "TORTIE_NAMESPACE" not in os.environ:
        kubeconfig = os.environ.get("TORTIE_KUBECONFIG") or os.environ.get("KUBECONFIG") or "~/.kube/config"
        namespace = namespace_of(kubeconfig, os.environ.get("TORTIE_KUBE_CONTEXT", ""))
        if namespace:
            os.environ["TORTIE_NAMESPACE"] = namespace
    return tortie(rest, called="kubectl tortie")
