"""Trees: parts by name, leaves read on demand, and no more of them than a state has."""

from __future__ import annotations

import functools
import itertools

import pytest

from dist_sched import StateError
from dist_sched._storage.trees import MAX_DEPTH, Items, Leaf, children, plain


def test_the_parts_of_a_dict_are_named_by_its_texts_and_ints():
    assert [("a", 1), ("2", 3)] == list(children({"a": 1, 2: 3, None: 4}))


def test_the_parts_of_a_list_are_named_by_their_index():
    assert [("0", "a"), ("1", "b")] == list(children(["a", "b"]))


def test_a_value_has_no_parts():
    assert [] == list(children("ab"))


def test_leaves_are_read_wherever_they_are_even_from_one_another():
    leaf = Leaf(lambda: {"a": Leaf(lambda: 7)})
    assert {"b": [{"a": 7}], "c": (1, {"a": 7})} == plain({"b": [leaf], "c": (1, leaf)})


def test_parts_of_a_list_that_were_stored_one_by_one_are_a_list_in_order():
    assert {"a": ["x", "y"]} == plain({"a": Items({1: "y", 0: "x"})})


def test_a_part_that_holds_itself_is_refused():
    nested = []
    nested.append(nested)
    with pytest.raises(StateError, match="nested too deeply"):
        plain(nested)


def test_a_part_that_doubles_thirty_times_is_refused(monkeypatch):
    monkeypatch.setattr("dist_sched._storage.trees.MAX_PARTS", 1000)
    nested = []
    for _ in range(30):
        nested = [nested, nested]
    with pytest.raises(StateError, match="too large"):
        plain(nested)


def test_a_part_has_at_most_a_million_values(monkeypatch):
    count = itertools.count
    monkeypatch.setattr(itertools, "count", lambda start: count(start + 10**6 - 3))
    assert [1, 2] == plain([1, 2])
    with pytest.raises(StateError, match="too large"):
        plain([1, 2, 3])


@pytest.mark.parametrize("wrapped", [lambda part: {"a": part}, lambda part: [part]])
def test_a_part_is_read_up_to_a_depth(wrapped):
    part = functools.reduce(lambda part, _: wrapped(part), range(MAX_DEPTH), 1)
    assert part == plain(part)
    with pytest.raises(StateError, match="nested too deeply"):
        plain(wrapped(part))
