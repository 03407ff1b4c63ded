"""Kubernetes' label selector as text: `app=web,tier in (a,b),env!=prod,team,!legacy`.

The terms are joined by "and" (https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api). As there,
`!=` and `notin` hold for an object that lacks the label.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

Labels = Mapping[str, str]
Predicate = Callable[[Labels], bool]

_TERM = re.compile(
    r"""\s*(?:
        (?P<key>[A-Za-z0-9][\w./-]*)\s*
        (?: (?P<op>==|=|!=)\s*(?P<value>[\w.-]*)
          | \b(?P<set>in|notin)\s*\((?P<values>[^()]*)\)
        )?
      | !\s*(?P<absent>[A-Za-z0-9][\w./-]*)
    )\s*(?:,|$)""",
    re.VERBOSE | re.ASCII,
)


class BadLabelSelector(ValueError):
    """The text is not a label selector; the message says where it stops being one."""


def parse(text: str) -> Predicate:
    """The predicate over an object's labels that `text` means; empty text holds for all. Raises BadLabelSelector."""
    terms: list[Predicate] = []
    position = 0
    stripped = text.rstrip()
    while position < len(stripped):
        match = _TERM.match(stripped, position)
        if match is None:
            raise BadLabelSelector(f"not a label selector from {stripped[position:]!r} on")
        terms.append(_term(match))
        position = match.end()
    if stripped.endswith(","):
        raise BadLabelSelector("a label selector cannot end with a comma")
    return lambda labels: all(term(labels) for term in terms)


def _term(match: re.Match[str]) -> Predicate:
    if absent := match["absent"]:
        return lambda labels: absent not in labels
    key = match["key"]
    if match["set"]:
        values = frozenset(value.strip() for value in match["values"].split(","))
    elif match["op"]:
        values = frozenset((match["value"],))
    else:
        return lambda labels: key in labels
    if match["set"] == "notin" or match["op"] == "!=":
        return lambda labels: labels.get(key) not in values
    return lambda labels: labels.get(key) in values
