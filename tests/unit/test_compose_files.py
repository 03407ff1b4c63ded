"""What the files of compose/ say twice, or must not say."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bus_schemas.manifests import Accepted, read
from chassis import embedded

DIRECTORY = Path(__file__).resolve().parents[2] / "compose"
FILES = ("docker-compose.yml", "docker-compose.nats3.yml")


def services(file: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((DIRECTORY / file).read_text())["services"]
    return found


def test_the_bus_is_configured_as_the_embedded_one() -> None:
    text = (DIRECTORY / "nats.conf").read_text()
    assert f"max_payload: {embedded.MAX_PAYLOAD}\n" in text
    assert f"max_pending: {16 * embedded.MAX_PAYLOAD}\n" in text


def test_what_the_cluster_begins_with_is_taken() -> None:
    documents = list(read((DIRECTORY / "cluster.yaml").read_text()))
    assert all(isinstance(document, Accepted) for document in documents)
    kinds = [type(document.resource).__name__ for document in documents if isinstance(document, Accepted)]
    nodes = [name for name in services(FILES[0]) if name.startswith("node")]
    assert kinds.count("Node") == len(nodes) == 3


@pytest.mark.parametrize("file", FILES)
def test_nothing_that_scales_has_a_name_or_port_of_its_own(file: str) -> None:
    for name, service in services(file).items():
        assert "container_name" not in service
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert "version" not in yaml.safe_load((DIRECTORY / file).read_text()), "version 2 of compose warns of it"


@pytest.mark.parametrize("file", FILES)
def test_nobody_is_privileged(file: str) -> None:
    for name, service in services(file).items():
        assert "privileged" not in service
        if "image" in service:
            assert service["cap_drop"] == ["ALL"], name
            assert service["user"] == ("root" if re.fullmatch(r"node\d", name) else "tortie"), name


@pytest.mark.parametrize("program", ["healthy", "node", "setup"])
def test_what_the_image_copies_can_be_run(program: str) -> None:
    assert os.access(DIRECTORY / program, os.X_OK)
