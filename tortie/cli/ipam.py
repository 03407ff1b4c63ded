"""`tortie ipam`: how addresses are used, whether that is right, and how they are given. One module a command."""

from __future__ import annotations

import typer

from tortie.cli import ipam_candidates, ipam_check, ipam_configure, ipam_release, ipam_show, ipam_split

app = typer.Typer()
app.command("show")(ipam_show.command)
app.command("check")(ipam_check.command)
app.command("candidates")(ipam_candidates.command)
app.command("release")(ipam_release.command)
app.command("configure")(ipam_configure.command)
app.command("split")(ipam_split.command)


@app.callback()
def _group() -> None:
    """Keeps the commands below a group, however few they are."""
