"""Records of late changes."""

from __future__ import annotations

import copy
import json
import pickle

import pytest

from dist_sched import ConfigError
from dist_sched._config.history import Change


@pytest.mark.parametrize(
    "position, operation, arguments",
    [
        (-1, "extend", {"horizon": 5, "field": "lr"}),
        (1.5, "extend", {"horizon": 5, "field": "lr"}),
        (1, "lengthen", {"horizon": 5, "field": "lr"}),
        (1, "extend", {"horizon": 5}),
        (1, "extend", {"horizon": 5, "field": "lr", "steps": 3}),
        (1, "extend", {"horizon": 0, "field": "lr"}),
        (1, "extend", {"horizon": 5, "field": "lr", "lengthen": "longest"}),
        (1, "extend", {"horizon": 5, "field": "lr", "lengthen": None}),
        (1, "extend", {"field": "lr", "lengthen": "stable"}),
        (1, "rewarm", {"steps": 5, "field": ""}),
        (1, "rewarm", {"steps": 5, "field": "lr", "peak": 1.0, "lengthen": "stable"}),
        (1, "rewarm", {"steps": 5, "field": "", "peak": 1.0}),
    ],
)
def test_an_illegal_record_cannot_be_made(position, operation, arguments):
    with pytest.raises(ConfigError):
        Change(position, operation, arguments)


def test_an_argument_of_version_2_makes_a_record_of_version_2():
    change = Change(7, "extend", {"horizon": 50, "field": "lr"})
    assert (1, 2) == (change.version, change.latest().version)
    assert {"horizon": 50, "field": "lr", "lengthen": "stable"} == change.latest().arguments
    assert change.latest() == change.latest().latest()


def test_what_means_today_what_it_meant_in_version_1_stays_of_version_1():
    change = Change(7, "rewarm", {"steps": 5, "peak": None, "field": "lr"})
    assert (1, change) == (change.version, change.latest())


def test_a_record_is_data():
    change = Change(7, "rewarm", {"steps": 5, "peak": None, "field": "lr"})
    assert change == Change(**json.loads(json.dumps(change.to_dict())))
    assert "rewarm at 7 (field=lr, steps=5, peak=None)" == str(change)


def test_the_record_of_a_late_change_cannot_be_changed():
    change = Change(7, "rewarm", {"steps": 5, "peak": None, "field": "lr"})
    with pytest.raises(TypeError):
        change.arguments["steps"] = 1000
    assert hash(change) == hash(copy.deepcopy(change))
    assert change == pickle.loads(pickle.dumps(change))  # noqa: S301 - our own bytes
