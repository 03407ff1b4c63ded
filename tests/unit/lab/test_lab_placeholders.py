from __future__ import annotations

import pytest

from tortie.lab.errors import CannotDo, ScenarioFault
from tortie.lab.placeholders import Memory, Placeholder, find

ROLES = {"uplink": "eth0", "vxlan": "vxlan.tortie"}


def test_they_are_found_anywhere_in_a_text() -> None:
    text = 'except: ["@ip(a/x)/32", "@block(n1)"]\ndev: "@uplink"\nmail: someone@example.org'
    assert find(text) == {Placeholder("ip", "a/x"), Placeholder("block", "n1"), Placeholder("uplink", "")}


def test_they_are_replaced_in_texts_lists_and_mappings() -> None:
    memory = Memory({Placeholder("ip", "a/x")})
    memory.learn({Placeholder("ip", "a/x"): "10.244.0.1"})
    filled = memory.fill({"dst": "@ip(a/x)/32", "flags": ["onlink"], "dev": "@vxlan", "metric": 3}, ROLES)
    assert filled == {"dst": "10.244.0.1/32", "flags": ["onlink"], "dev": "vxlan.tortie", "metric": 3}


def test_what_one_stood_for_still_holds_after_the_thing_is_gone() -> None:
    memory = Memory(find("@block(n1)"))
    memory.learn({Placeholder("block", "n1"): "10.244.6.0/24"})
    memory.learn({})
    assert memory.fill("@block(n1)", {}) == "10.244.6.0/24"


def test_what_never_stood_for_anything_is_told() -> None:
    memory = Memory(find("@ip(a/x)"))
    assert memory.unknown({"dst": "@ip(a/x)"})
    assert not memory.unknown("@uplink")
    with pytest.raises(CannotDo, match="does not stand for anything yet"):
        memory.fill("@ip(a/x)", ROLES)


def test_a_device_role_without_a_node() -> None:
    with pytest.raises(ScenarioFault, match="@ipip"):
        Memory(set()).fill("@ipip", ROLES)
