"""What README.md says of the containers, typed as a user types it; its cluster serves the tests that follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import compose
from tests.support.agent import REPOSITORY
from tests.support.compose import Stack

pytestmark = [pytest.mark.root, pytest.mark.compose]


def test_the_readme(stack: Stack, tmp_path: Path) -> None:
    make, up, web, address, client, apply, again, other, scale, down = compose.commands()
    machine = stack.machine
    assert (make, up) == ("make image && cd compose", "docker-compose up -d")
    assert web == "docker-compose exec node1 tortie pod run web --label app=web -- python -m http.server 80"

    done = stack.typed(make, where=REPOSITORY)
    assert done.returncode == 0, done.stderr
    done = stack.typed(up)
    assert done.returncode == 0, done.stderr

    # at once, as an impatient user does; its terminal stays
    log = tmp_path / "web.log"
    machine.start("script", "-qefc", f"cd {compose.DIRECTORY} && {web}", "/dev/null", log=log)
    stack.until(lambda: "Serving HTTP" in log.read_text(), lambda: f"the server starts: {log.read_text()}")
    assert "default/web runs on node1 with 10.244." in log.read_text()

    assert "200 OK" in stack.typed(client, before=address).stdout
    assert stack.typed(other, before=address).stdout.startswith("HTTP/1.0 200 OK"), "open while there is no policy"
    assert stack.typed(apply).stdout == "NetworkPolicy/default/web created\n"
    assert "200 OK" in stack.typed(again, before=address).stdout
    refused = stack.typed(other, before=address)
    assert (refused.returncode, refused.stdout) == (28, ""), refused
    assert "timed out" in refused.stderr

    assert stack.typed(scale).returncode == 0
    stack.settle()
    assert down == "docker-compose down -v"
    assert stack.typed(down).returncode == 0
    assert stack.containers() == {}
    for kind in ("volume", "network"):
        assert "tortie" not in machine.run("docker", kind, "ls", "--format", "{{.Name}}")
