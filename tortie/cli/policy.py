"""`tortie policy`: what policies mean, before and after they are applied. One module a command."""

from __future__ import annotations

import typer

from tortie.cli import policy_diff, policy_explain, policy_hits, policy_lint, policy_test

app = typer.Typer()
app.command("explain")(policy_explain.command)
app.command("test")(policy_test.command)
app.command("diff")(policy_diff.command)
app.command("lint")(policy_lint.command)
app.command("hits")(policy_hits.command)


@app.callback()
def _group() -> None:
    """Keeps the commands below a group, however few they are."""
