"""A block of a peer's config is understood key by key, or refused by name."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError
from dist_sched._peers.block import REQUIRED, Key, entries, one_given, read, share, steps
from dist_sched._rules import whole

KEYS = {"warmup": Key(whole, 5), "lr": Key(whole, REQUIRED), "decay": Key(whole)}


def test_a_missing_key_has_its_default():
    assert {"warmup": 5, "lr": 1, "decay": None} == read({"lr": 1}, KEYS)


def test_null_is_as_missing():
    assert {"warmup": 5, "lr": 1, "decay": None} == read({"lr": 1, "warmup": None}, KEYS)


@pytest.mark.parametrize("block", [{}, {"lr": None}])
def test_what_must_be_there_is_named(block):
    with pytest.raises(ConfigError, match=r"^lacks lr$"):
        read(block, KEYS)


def test_an_unknown_key_is_named_with_the_near_miss():
    with pytest.raises(ConfigError, match=r"'warm_up' is not known here.*did you mean 'warmup'"):
        read({"lr": 1, "warm_up": 3}, KEYS)


def test_a_block_without_keys_says_so():
    with pytest.raises(ConfigError, match="'a' is not known here; there are none"):
        read({"a": 1}, {})


def test_a_refused_key_is_named_with_the_reason():
    with pytest.raises(ConfigError, match="last_epoch=3: is the position of a resume"):
        read(
            {"lr": 1, "last_epoch": 3}, KEYS, refused={"last_epoch": "is the position of a resume"}
        )


@pytest.mark.parametrize("block", [None, "lr", [("lr", 1)]])
def test_a_block_is_a_mapping(block):
    with pytest.raises(ConfigError, match="must be a mapping"):
        read(block, KEYS)


@pytest.mark.parametrize(
    "rule, value",
    [(steps, 0), (steps, 2.5), (steps, True), (share, 1.1), (share, -0.1), (entries, [])],
)
def test_illegal_values_are_refused(rule, value):
    with pytest.raises(ConfigError, match=r"^a="):
        rule("a", value)


@pytest.mark.parametrize(
    "values, words", [({"a": None, "b": None}, "has none"), ({"a": 1, "b": 2}, "has a and b")]
)
def test_one_of_several_keys_must_be_given(values, words):
    with pytest.raises(ConfigError, match=f"{words} of 'a', 'b'; pass exactly one"):
        one_given(values, "a", "b")


def test_the_given_key_is_returned():
    assert "b" == one_given({"a": None, "b": 0}, "a", "b")
