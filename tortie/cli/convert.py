"""`tortie convert`: other networks' configuration as manifests, on standard output, to be read and then applied."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
import yaml

from bus_schemas.manifests import Rejected, read
from tortie import flannel as converter
from tortie.cli import sources
from tortie.cli.errors import Refused

app = typer.Typer()


@app.callback()
def _group() -> None:
    """Keeps the group a group while it has one command."""


@app.command()
def flannel(
    file: Annotated[str, typer.Argument(metavar="FILE|-", help="net-conf.json, or the ConfigMap that holds it.")],
) -> None:
    """flannel's net-conf.json as IPPools and FelixConfiguration: host-gw, vxlan, ipip and wireguard."""
    found: list[converter.Converted] = []
    for source in sources.read([file], recursive=False):
        try:
            documents = [document for document in yaml.safe_load_all(source.text) if _is_meant(document)]
            if not documents:
                raise Refused(
                    f"{source.name}: there is neither flannel's {converter.KEY} nor a ConfigMap that holds it"
                )
            found += [converter.convert(converter.configuration(document)) for document in documents]
        except yaml.YAMLError as error:
            raise Refused(f"{source.name}: {error}") from error
        except converter.FlannelFault as error:
            raise Refused(f"{source.name}: {error}") from error
    for warning in (warning for one in found for warning in one.warnings):
        print(f"warning: {file}: {warning}", file=sys.stderr)
    text = yaml.safe_dump_all([document for one in found for document in one.documents], sort_keys=False)
    wrong = [fault for outcome in read(text, file) if isinstance(outcome, Rejected) for fault in outcome.faults]
    if wrong:
        raise Refused(f"{file}: what it says is not allowed", [f"{fault.path}: {fault.reason}" for fault in wrong])
    print(text, end="")


def _is_meant(document: object) -> bool:
    """flannel's manifest has many documents; one of them holds the configuration."""
    if not isinstance(document, dict):
        return document is not None
    if "kind" not in document:
        return True
    return document["kind"] == "ConfigMap" and converter.KEY in (document.get("data") or {})
