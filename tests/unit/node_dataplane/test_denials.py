"""A denied packet becomes a sentence; many become few."""

from __future__ import annotations

from dataclasses import replace

from bus_schemas.ids import RulesId
from services.node_dataplane.denials import UNTOLD, Denials, Owners, Sighting, Told, describe, is_news, recognise
from services.node_dataplane.netlink.nflog import Logged
from services.node_dataplane.nft.attribution import Denial

WEB = RulesId("networkpolicy/default/web")
CLIENT, SERVER, STRANGER = bytes((10, 244, 0, 5)), bytes((10, 244, 0, 6)), bytes((192, 0, 2, 1))
LINKS = {"torclient": "default/client", "torserver": "default/server"}
ADDRESSES = {"10.244.0.5": "default/client", "10.244.0.6": "default/server"}
HOSTS = {"eth1": "HostEndpoint/uplink"}
OWNERS = Owners(*(lambda name, known=known: known.get(name, "") for known in (LINKS, ADDRESSES, HOSTS)))
BY_RULE = Denial("denied", "ingress", WEB, index=2, name="no-http", tier="default")


def packet(source: bytes = CLIENT, destination: bytes = SERVER, port: int = 80, source_port: int = 40000) -> bytes:
    ports = source_port.to_bytes(2, "big") + port.to_bytes(2, "big")
    return bytes((0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0)) + source + destination + ports


def seen(
    denial: Denial = BY_RULE, payload: bytes = b"", indev: str = "torclient", outdev: str = "torserver"
) -> Sighting:
    logged = Logged("", 1, 2, payload or packet(), 0)
    return recognise(logged, denial, indev, outdev, OWNERS, "node1")


def title(rules: RulesId) -> str:
    return "NetworkPolicy/default/web"


def denials(most_per_s: int = 100) -> Denials:
    return Denials(title, most_per_s, window_s=10.0)


def test_a_rule_at_ingress() -> None:
    told = describe(seen(), 1, title)
    assert told.what == "denied"
    assert told.object == "default/server"
    assert told.message == (
        "default/client (10.244.0.5) to default/server, TCP port 80, "
        "was denied by NetworkPolicy/default/web, rule 2 (no-http)."
    )
    assert told.detail == {
        "direction": "ingress",
        "peer": "10.244.0.5",
        "peer_pod": "default/client",
        "protocol": "TCP",
        "port": "80",
        "policy": "NetworkPolicy/default/web",
        "rule": "2",
        "rule_name": "no-http",
        "tier": "default",
        "count": "1",
    }


def test_the_end_of_a_tier_at_egress() -> None:
    told = describe(seen(Denial("denied", "egress", RulesId(""), tier="security"), outdev="eth0"), 3, title)
    assert told.object == "default/client"
    assert told.detail["peer"] == "10.244.0.6"
    assert told.message.endswith("was denied: nothing in the tier security allows it (3 times).")


def test_a_staged_policy_and_a_rule_that_logs() -> None:
    assert describe(seen(replace(BY_RULE, kind="would_deny")), 1, title).what == "would_be_denied"
    assert describe(seen(replace(BY_RULE, kind="log")), 1, title).what == "logged"


def test_a_spoofed_source_is_the_pods_by_its_link() -> None:
    guard = Denial("guard", "egress", RulesId(""), reason="spoofed")
    told = describe(seen(guard, packet(source=STRANGER), outdev=""), 1, title)
    assert (told.what, told.object, told.detail["source"]) == ("guarded", "default/client", "192.0.2.1")
    assert "the source address is not one of its own" in told.message


def test_everyday_drops_are_no_news() -> None:
    assert not is_news(Denial("guard", "egress", RulesId(""), reason="invalid"))
    assert is_news(Denial("guard", "egress", RulesId(""), reason="spoofed"))
    assert is_news(BY_RULE)


def test_a_pod_is_found_by_its_address_when_its_link_is_gone() -> None:
    assert seen(outdev="").object == "default/server"


def test_what_is_no_pods_is_the_device_of_the_node() -> None:
    sighting = seen(BY_RULE, packet(STRANGER, STRANGER), indev="eth0", outdev="")
    assert sighting.object == "node1:eth0"
    assert seen(BY_RULE, b"\0", indev="", outdev="").object == "node1"


def test_what_a_node_receives_or_sends_is_its_host_endpoints() -> None:
    outside = packet(STRANGER, STRANGER)
    assert seen(BY_RULE, outside, indev="eth1", outdev="").object == "HostEndpoint/uplink"
    assert seen(replace(BY_RULE, way="egress"), outside, indev="", outdev="eth1").object == "HostEndpoint/uplink"
    assert seen(replace(BY_RULE, kind="guard"), outside, indev="eth1", outdev="").object == "node1:eth1"


def counts(told: list[Told]) -> list[str]:
    return [one.detail["count"] for one in told]


def test_the_same_news_is_told_at_once_and_then_once_a_window() -> None:
    log = denials()
    assert counts(log.see(seen(), 0.0)) == ["1"]
    for again in range(1, 6):
        assert log.see(seen(payload=packet(source_port=40000 + again)), again) == []
    assert log.due() == 10.0
    assert counts(log.settle(10.0)) == ["5"]
    assert log.settle(20.0) == []
    assert log.due() is None
    assert counts(log.see(seen(), 30.0)) == ["1"]


def test_other_peers_ports_and_rules_are_other_news() -> None:
    log = denials()
    others = [seen(payload=packet(port=81)), seen(payload=packet(source=STRANGER)), seen(replace(BY_RULE, index=3))]
    told = [log.see(sighting, 0.0) for sighting in (seen(), *others)]
    assert list(map(len, told)) == [1, 1, 1, 1]


def test_no_more_than_so_many_a_second_and_the_rest_as_a_number() -> None:
    log = denials(most_per_s=5)
    told = [event for port in range(100) for event in log.see(seen(payload=packet(port=port + 1)), 0.0)]
    assert len(told) == 5
    assert log.untold == 95
    told = [event for port in range(100) for event in log.see(seen(payload=packet(port=port + 201)), 1.0)]
    assert len(told) == 5
    summaries = log.settle(10.0)
    assert [(event.what, event.detail["count"]) for event in summaries] == [(UNTOLD, "190")]
    assert log.settle(30.0) == []
    assert log.due() is None


def test_a_flood_is_not_remembered() -> None:
    log = denials(most_per_s=5)
    for second in range(100):
        for port in range(50):
            log.see(seen(payload=packet(port=1000 * (second % 50) + port + 1)), float(second))
    assert len(log._windows) <= 5 * 11
