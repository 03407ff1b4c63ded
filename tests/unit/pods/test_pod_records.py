"""What a node remembers of its pods, and who may change it."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from bus_schemas.ids import PodKey
from tortie.pods.errors import NameTaken, NoSuchPod, PodError
from tortie.pods.records import EXIT, Record, Records

WEB = PodKey("shop", "web")


def record(key: PodKey = WEB, container: str = "c1") -> Record:
    return Record(namespace=key.namespace, name=key.name, container=container, uid="u", netns="n", started=1.0)


@pytest.fixture
def records(tmp_path: Path) -> Records:
    return Records(tmp_path / "pods")


def test_a_record_is_there_until_it_is_forgotten(records: Records) -> None:
    assert records.all() == []
    with records.claimed(record()):
        assert records.get(WEB) == record()
    assert records.all() == [record()]
    records.forget(WEB)
    assert records.all() == []
    with pytest.raises(NoSuchPod, match="no pod shop/web"):
        records.get(WEB)


def test_a_name_is_claimed_once(records: Records) -> None:
    with records.claimed(record()):
        pass
    with pytest.raises(NameTaken, match="tortie pod rm -n shop web"), records.claimed(record(container="c2")):
        raise AssertionError
    assert records.get(WEB).container == "c1"


def test_a_claim_that_was_cut_short_before_its_record_is_no_obstacle(records: Records) -> None:
    records.path(WEB).mkdir(parents=True)
    assert records.all() == []
    with records.claimed(record()):
        assert records.get(WEB) == record()


def test_names_that_could_be_mistaken_for_one_another(records: Records) -> None:
    keys = [PodKey("a", "b.c"), PodKey("a-b", "c"), PodKey("a", "b-c")]
    for key in keys:
        with records.claimed(record(key)):
            pass
    assert [found.key for found in records.all()] == sorted(keys)


def test_who_waits_for_a_pod_that_is_removed_finds_none(records: Records) -> None:
    with records.claimed(record()):
        pass
    found: list[object] = []

    def second() -> None:
        try:
            with records.held(WEB) as held:
                found.append(held)
        except NoSuchPod as error:
            found.append(error)

    with records.held(WEB):
        thread = threading.Thread(target=second)
        thread.start()
        records.forget(WEB)
    thread.join()
    assert isinstance(found[0], NoSuchPod)


def test_nothing_is_collected_while_a_pod_is_started(records: Records) -> None:
    order: list[str] = []

    def collect() -> None:
        with records.collecting():
            order.append("collected")

    with records.claimed(record()):
        thread = threading.Thread(target=collect)
        thread.start()
        order.append("started")
    thread.join()
    assert order == ["started", "collected"]


def test_pods_are_started_side_by_side(records: Records) -> None:
    with records.claimed(record()), records.claimed(record(PodKey("shop", "db"))):
        assert len(records.all()) == 2


def test_exit_codes(records: Records) -> None:
    with records.claimed(record()):
        assert records.exit_code(WEB) is None
        (records.path(WEB) / EXIT).write_text("3")
        assert records.exit_code(WEB) == 3


def test_a_record_that_cannot_be_read_is_named(records: Records) -> None:
    with records.claimed(record()):
        pass
    (records.path(WEB) / "pod.json").write_text("{")
    with pytest.raises(PodError, match=r"shop\.\.web/pod\.json cannot be read"):
        records.all()
