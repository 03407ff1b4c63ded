"""docs/runtimes.md, command by command, as somebody who follows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import runtimes
from tests.support.agent import REPOSITORY
from tests.support.runtimes import blocks

pytestmark = pytest.mark.root


def test_the_packages_are_those_that_are_prepared_for_tests() -> None:
    (script,) = blocks("Packages")
    prepared = (REPOSITORY / "scripts" / "prepare").read_text()
    for package in script.split()[3:]:
        assert f"[{package}]=" in prepared


def test_the_page_from_top_to_bottom(base_image: Path, tmp_path: Path) -> None:
    with runtimes.host(base_image, tmp_path) as host:
        machine = host.machine
        host.serve()
        (install,) = blocks("The plugin and its configuration")
        machine.shell(install)
        (shown,) = blocks("The plugin and its configuration", "json")
        assert json.loads(machine.run("cat", "/etc/cni/net.d/10-tortie.conflist")) == json.loads(shown)

        host.podman()
        container, clients = blocks("podman")[2:]
        machine.shell(container)
        host.until(lambda: host.hears(host.address("web"), 80), "it serves")
        assert machine.shell(clients) == "hello\nhello\n"
        assert host.outside_hears(runtimes.NODE, 8080)

        (pod,) = blocks("Which pod a container is")
        assert "node1" in machine.shell(pod)
        assert host.endpoints()["shop/db"] == (host.address("db"),)

        host.containerd()
        assert machine.shell(blocks("containerd")[1]).endswith("hello\n")
        assert len(host.endpoints()) == 3
        (collect,) = blocks("containerd")[2:]
        machine.shell(collect)
        host.until(lambda: len(host.endpoints()) == 2, "the forgotten container is collected")
        assert host.hears(host.address("web"), 80)
