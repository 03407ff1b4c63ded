"""`tortie node`: one node, seen closely. One module a command."""

from __future__ import annotations

import typer

from tortie.cli import node_cleanup, node_explain, node_status, node_takeover

app = typer.Typer()
app.command("status")(node_status.command)
app.command("explain")(node_explain.command)
app.command("cleanup")(node_cleanup.command)
app.command("takeover")(node_takeover.command)


@app.callback()
def _group() -> None:
    """Keeps the commands below a group, however few they are."""
