from __future__ import annotations

import pytest

from services.api.labels import BadLabelSelector, parse

WEB = {"app": "web", "tier": "front", "empty": "", "example.com/team": "a"}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("  ", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web", True),
        ("app=db", False),
        ("app!=db", True),
        ("app!=web", False),
        ("other!=web", True),
        ("app", True),
        ("other", False),
        ("!other", True),
        ("! app", False),
        ("empty=", True),
        ("app=", False),
        ("app in (db, web)", True),
        ("app in (db)", False),
        ("app notin (db)", True),
        ("app notin (web)", False),
        ("other notin (web)", True),
        ("other in ()", False),
        ("in in (a)", False),
        ("example.com/team=a,app in (web,db),!other", True),
        ("app=web,tier=back", False),
    ],
)
def test_labels_match(text: str, holds: bool) -> None:
    assert parse(text)(WEB) is holds


@pytest.mark.parametrize(
    "text", ["=a", "app in web", "app in (web", "a b", "app=web,", ",", "app>1", "app=a=b", "-a=b"]
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadLabelSelector):
        parse(text)
