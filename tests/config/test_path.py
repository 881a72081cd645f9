"""Paths: the names of entries, written and read back, and what a beginning stands for."""

from __future__ import annotations

import pytest

from dist_sched._config.path import Path

NAMES = [
    "lr",
    "betas[0]",
    "lr.phases[1].steps",
    "weight_decay.peak",
    "groups",
    "groups[a]",
    "groups[a].lr",
    "groups[block[0-9]*].betas[0].phases[12].end",
    "groups[a].b].lr",
    "groups[layers.*.bias].weight_decay.to",
    "*",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_read_back_as_it_is_written(name):
    assert name == str(Path.parse(name))


@pytest.mark.parametrize(
    "name, expected",
    [
        ("betas[0].phases[1].end", Path("betas[0]", ("phases", "[1]", "end"))),
        ("groups[h.*].lr.to", Path("lr", ("to",), "h.*")),
        ("groups[b[0-9].c]", Path("", pattern="b[0-9].c")),
    ],
)
def test_a_name_has_a_pattern_a_field_and_parts(name, expected):
    assert expected == Path.parse(name)


@pytest.mark.parametrize(
    "begin, covered",
    [
        ("lr", ["lr", "lr.phases", "lr.phases[0].end"]),
        ("betas", ["betas[0]", "betas[1].phases[0].end"]),
        ("lr.phases", ["lr.phases[0]", "lr.phases[10].steps"]),
        ("groups", ["groups[a].lr", "groups[b].betas[0].to"]),
        ("groups[a]", ["groups[a].lr"]),
    ],
)
def test_a_beginning_covers_what_it_begins(begin, covered):
    assert [True] * len(covered) == [Path.parse(begin).covers(Path.parse(one)) for one in covered]


@pytest.mark.parametrize(
    "begin, other",
    [
        ("lr", "lr_mult"),
        ("lr.phases[1]", "lr.phases[10].end"),
        ("lr.phases[0]", "lr"),
        ("", "lr"),
        ("lr", "groups[a].lr"),
        ("groups[a]", "groups[ab].lr"),
        ("groups[a].lr", "groups[a].lr_mult"),
    ],
)
def test_a_beginning_ends_where_a_name_ends(begin, other):
    assert not Path.parse(begin).covers(Path.parse(other))


def test_the_field_of_an_override_is_its_base():
    assert Path("lr") == Path("lr", ("phases",), "a*").base
