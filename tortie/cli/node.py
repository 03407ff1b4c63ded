"""`tortie node`: one node, seen closely. One module a command."""

from __future__ import annotations

import typer

from tortie.cli import node_explain, node_status

app = typer.Typer()
app.command("status")(node_status.command)
app.command("explain")(node_explain.command)


@app.callback()
def _group() -> None:
    """Keeps the commands below a group, however few they are."""
