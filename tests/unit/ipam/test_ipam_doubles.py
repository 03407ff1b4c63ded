"""Addresses that two nodes list: told once when it stays so, and once when it is over."""

from __future__ import annotations

from bus_schemas.endpoints import Endpoint
from bus_schemas.ids import HandleId, NodeName
from bus_schemas.ipam import Handle, Held, Holding
from bus_schemas.subjects import ENDPOINT, HOLDING, Fact
from services.ipam.doubles import SETTLED_S, Doubles
from services.ipam.words import Words

ADDRESS = "10.0.0.1"


def endpoint(node: str, pod: str, address: str = ADDRESS) -> Fact:
    value = Endpoint(
        node=NodeName(node),
        namespace="default",
        name=pod,
        container=pod,
        handle=HandleId(f"net.{node}.{pod}"),
        link="tor",
        addresses=(address,),
    )
    return Fact(ENDPOINT, (node, "default", pod), value)


def records(node: str, pod: str) -> dict[HandleId, Handle]:
    handle = HandleId(f"net.{node}.{pod}")
    return {handle: Handle(handle=handle, node=NodeName(node), addresses=(ADDRESS,), sequences=(1,))}


def test_told_once_when_it_stays_and_once_when_it_is_over() -> None:
    words, doubles = Words([endpoint("a", "web")]), Doubles()
    held = records("a", "web")
    assert doubles.look(words, held, 100.0) == ([], None)
    words.apply(endpoint("b", "copy"))
    assert doubles.look(words, held, 101.0) == ([], SETTLED_S)
    assert doubles.look(words, held, 103.0) == ([], SETTLED_S - 2)
    (told,), again = doubles.look(words, held, 101.0 + SETTLED_S)
    assert (told.what, told.address, again) == ("duplicate", ADDRESS, None)
    assert told.message == "10.0.0.1 is default/web's on a by the records, and b (default/copy) lists it, too."
    assert doubles.told == [told.message]
    assert doubles.look(words, held, 200.0) == ([], None)
    words.apply(Fact(ENDPOINT, ("b", "default", "copy"), None))
    (over,), _ = doubles.look(words, held, 201.0)
    assert (over.what, doubles.told, doubles.watched) == ("resolved", [], False)


def test_what_changes_hands_within_seconds_is_nothing() -> None:
    words, doubles = Words([endpoint("a", "web"), endpoint("b", "next")]), Doubles()
    doubles.look(words, {}, 100.0)
    words.apply(Fact(ENDPOINT, ("a", "default", "web"), None))
    assert doubles.look(words, {}, 100.0 + SETTLED_S) == ([], None)


def test_a_node_may_list_an_address_twice_and_who_has_it_may_be_nobody() -> None:
    warm = Holding(node=NodeName("a"), held=(Held(handle=HandleId("warm.a.1"), addresses=(ADDRESS,)),))
    words, doubles = Words([endpoint("a", "web"), Fact(HOLDING, ("a",), warm)]), Doubles()
    assert doubles.look(words, {}, 100.0) == ([], None), "a warm address that becomes a pod's"
    words.apply(endpoint("b", "web"))
    doubles.look(words, {}, 100.0)
    (told,), _ = doubles.look(words, {}, 100.0 + SETTLED_S)
    assert "by the records it is nobody's" in told.message


def test_words_forget_what_is_not_shared_any_more() -> None:
    words = Words([endpoint("a", "web"), endpoint("b", "web")])
    assert words.shared == {ADDRESS}
    words.apply(endpoint("b", "web", "10.0.0.2"))
    assert words.shared == set()
