"""Wherever the network cuts the bytes of a watch, the lines are the same."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.kube_bridge.errors import Unreachable
from services.kube_bridge.lines import Lines

LINE = st.binary(min_size=1, max_size=40).filter(lambda line: b"\n" not in line and line.strip() != b"")


@given(st.lists(LINE, max_size=6), st.lists(st.integers(0, 240), max_size=8))
def test_any_cut_gives_the_same_lines(sent: list[bytes], cuts: list[int]) -> None:
    data = b"".join(line + b"\n" for line in sent)
    lines = Lines()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    heard = [line for begin, end in pairwise(bounds) for line in lines.feed(data[begin:end])]
    assert heard == sent
    assert not lines.cut


def test_an_end_in_the_middle_is_known_and_a_line_without_end_refused() -> None:
    lines = Lines(most=10)
    assert lines.feed(b'{"a":1}\n{"b"') == [b'{"a":1}']
    assert lines.cut
    with pytest.raises(Unreachable, match="more than 10 bytes"):
        lines.feed(b":1234567")


def test_empty_lines_are_no_events() -> None:
    assert Lines().feed(b"\n\r\n{}\n") == [b"{}"]
