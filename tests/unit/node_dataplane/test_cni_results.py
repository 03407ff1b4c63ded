"""Results of ADD in every version, alone and behind those of other plugins."""

from __future__ import annotations

import json
from typing import Any

import pytest

from services.node_dataplane import cni_results
from services.node_dataplane.cni_errors import CniError, Code
from services.node_dataplane.cni_results import Previous
from tests.support import cni_spec

LOOPBACK: dict[str, Any] = {
    "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": "/n"}],
    "ips": [{"address": "127.0.0.1/8", "interface": 0}],
    "routes": [{"dst": "192.0.2.0/24"}],
    "dns": {"nameservers": ["192.0.2.1"]},
}


def result(version: str, before: Previous | None = None) -> dict[str, Any]:
    text = cni_results.result(
        version,
        link="tor1",
        interface="eth0",
        netns="/n",
        mac="aa:bb:cc:dd:ee:ff",
        mtu=1450,
        addresses=("10.244.0.5", "fd00::5"),
        before=before,
    )
    return dict(json.loads(text))


@pytest.mark.parametrize("version", cni_spec.VERSIONS)
def test_results_have_the_shape_of_their_version(version: str) -> None:
    answer = result(version)
    assert cni_spec.complaints(answer, version) == []
    assert [i["name"] for i in answer["interfaces"]] == ["tor1", "eth0"]
    assert answer["interfaces"][1]["sandbox"] == "/n"
    assert [ip["address"] for ip in answer["ips"]] == ["10.244.0.5/32", "fd00::5/128"]
    assert [ip["gateway"] for ip in answer["ips"]] == ["169.254.1.1", "fe80::ecee:eeff:feee:eeee"]
    assert all(ip["interface"] == 1 for ip in answer["ips"])
    assert ("mtu" in answer["interfaces"][1]) == (version == "1.1.0")
    assert [r["dst"] for r in answer["routes"]] == ["0.0.0.0/0", "::/0"]


def test_what_plugins_before_answered_stays() -> None:
    answer = result("1.0.0", cni_results.previous(LOOPBACK))
    assert cni_spec.complaints(answer, "1.0.0") == []
    assert [i["name"] for i in answer["interfaces"]] == ["lo", "tor1", "eth0"]
    assert [(ip["address"], ip["interface"]) for ip in answer["ips"]] == [
        ("127.0.0.1/8", 0),
        ("10.244.0.5/32", 2),
        ("fd00::5/128", 2),
    ]
    assert [r["dst"] for r in answer["routes"]] == ["192.0.2.0/24", "0.0.0.0/0", "::/0"]
    assert answer["dns"] == {"nameservers": ["192.0.2.1"]}


def test_of_a_previous_result_the_interfaces_own_addresses_count() -> None:
    before = cni_results.previous(result("1.0.0", cni_results.previous(LOOPBACK)))
    assert before is not None
    assert before.addresses("eth0") == ("10.244.0.5", "fd00::5")
    assert before.addresses("net1") == ()
    nameless = cni_results.previous({"ips": [{"address": "10.0.0.1/32"}, {"address": "10.0.0.2/32", "interface": 7}]})
    assert nameless is not None
    assert nameless.addresses("eth0") == ("10.0.0.1",)


@pytest.mark.parametrize(
    "raw",
    [
        [],
        "text",
        {"ips": {}},
        {"ips": ["10.0.0.1"]},
        {"ips": [{"interface": 0}]},
        {"ips": [{"address": "10.0.0.1/32", "interface": "0"}]},
        {"interfaces": [7]},
        {"routes": "none"},
        {"dns": []},
    ],
)
def test_what_is_no_result(raw: object) -> None:
    with pytest.raises(CniError) as caught:
        cni_results.previous(raw)
    assert caught.value.code == Code.UNDECODABLE


def test_no_previous_result() -> None:
    assert cni_results.previous(None) is None
