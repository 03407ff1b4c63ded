"""What README.md says of the containers, as a user reads and types it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.support.agent import REPOSITORY
from tests.support.compose import Stack

SECTION = "Containers"


def commands(page: Path = REPOSITORY / "README.md", heading: str = SECTION) -> list[str]:
    """The lines that begin with `$` below a heading, without the comments behind them."""
    for section in re.split(r"^(?=#+ )", page.read_text(), flags=re.MULTILINE):
        if section.partition("\n")[0].lstrip("# ") == heading:
            return [re.sub(r"\s+#.*", "", line) for line in re.findall(r"^\$ (.*)$", section, flags=re.MULTILINE)]
    raise AssertionError(f"{page} has no section {heading!r}")


MAKE, UP, WEB, ADDRESS, CLIENT, APPLY, AGAIN, OTHER, SCALE, DOWN = commands()


def done(stack: Stack, line: str, where: Path | None = None) -> str:
    """What a line prints, which must succeed."""
    outcome = stack.typed(line, where=where) if where else stack.typed(line)
    assert outcome.returncode == 0, f"{line}: {outcome.stderr[-3000:]}"
    return outcome.stdout


def walk(stack: Stack, log: Path) -> None:
    """All that is between `up` and `--scale`, at once, as an impatient user does it."""
    stack.typed_and_left(WEB, log)
    stack.until(lambda: "Serving HTTP" in log.read_text(), lambda: f"the server starts: {log.read_text()}")
    assert "default/web runs on node1 with 10.244." in log.read_text()

    def asked(line: str) -> subprocess.CompletedProcess[str]:
        return stack.typed(line, before=ADDRESS)

    assert asked(CLIENT).stdout.startswith("HTTP/1.0 200 OK")
    assert asked(OTHER).stdout.startswith("HTTP/1.0 200 OK"), "open while there is no policy"
    assert done(stack, APPLY) == "NetworkPolicy/default/web created\n"
    assert asked(AGAIN).stdout.startswith("HTTP/1.0 200 OK")
    refused = asked(OTHER)
    assert (refused.returncode, refused.stdout) == (28, ""), refused
    assert "timed out" in refused.stderr
