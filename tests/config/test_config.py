"""What both kinds of config have in common: reading, late changes, lint and pickling."""

from __future__ import annotations

import pickle

import pytest

from dist_sched import ConfigError, schedules
from dist_sched._config.config import (
    ABSENT,
    Misfit,
    Sides,
    fitting,
    unit_word,
    with_change,
    with_history,
)
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.history import Change
from dist_sched._config.path import Path
from dist_sched._config.specification import Specification
from helpers import CONFIG

FLAT = {**CONFIG, "lr_decay_style": "constant"}
WSD = schedules.wsd(1.0, 100, decay=20)


def cooldown(end=0.0, position=50, **changes):
    arguments = {"field": "lr", "steps": 10, "shape": "linear", "end": end, **changes}
    return Change(position, "cooldown", arguments)


def extension(horizon=200, position=50, **changes):
    return Change(position, "extend", {"field": "lr", "horizon": horizon, **changes})


def spec(lr=WSD, groups=None):
    return Specification.of({"lr": lr, "momentum": 0.9}, groups)


@pytest.mark.parametrize("word", ["steps", "samples", "tokens"])
def test_a_unit_is_one_of_three_words(word):
    assert word == unit_word("unit", word)
    with pytest.raises(ConfigError, match="unit='epochs'"):
        unit_word("unit", "epochs")


def test_a_part_that_does_not_fit_is_named_with_the_reason():
    def read(*_):
        raise ConfigError("odd")

    with pytest.raises(Misfit) as caught:
        fitting("a.b", read, 1, 2)
    assert ("a.b", "odd", "a.b: odd") == (
        caught.value.part,
        caught.value.reason,
        str(caught.value),
    )
    assert [1, 2] == fitting("a", lambda *data: [*data], 1, 2)


@pytest.mark.parametrize(
    "config, checkpoint, expected",
    [(1, 1, False), (1, 2, True), (1, ABSENT, False), (ABSENT, 1, True), (1, None, True)],
)
def test_sides_differ_where_the_checkpoint_has_another_value(config, checkpoint, expected):
    sides = Sides(config, checkpoint)
    assert (expected, "lr") == (sides.differ, sides.field)


def test_a_specification_has_no_entry_under_its_own_name():
    with pytest.raises(ConfigError, match=r"^max_lr: is not known$"):
        Specification.check_entry("max_lr", 1.0)


@pytest.mark.parametrize(
    "change, part, reason",
    [
        (lambda data: data.pop("max_lr"), "max_lr", "is missing"),
        (lambda data: data.update(color=1), "color", "is not known to this release"),
        (lambda data: data.update({3: 1}), "3", "is not known to this release"),
        (
            lambda data: data.update(max_lr="x"),
            "max_lr",
            "max_lr='x': must be a number",
        ),
    ],
)
def test_a_part_that_is_missing_unknown_or_illegal_is_a_misfit(change, part, reason):
    data = OptimizerParamConfig(**CONFIG).to_dict()
    change(data)
    with pytest.raises(Misfit) as caught:
        OptimizerParamConfig.read(data)
    assert (part, reason) == (caught.value.part, caught.value.reason)


@pytest.mark.parametrize(
    "config", [OptimizerParamConfig(**CONFIG), spec()], ids=["entries", "spec"]
)
def test_parts_are_read_back_equal(config):
    assert config == type(config).from_parts(config.parts())
    assert config.parts() == type(config).read(config.to_dict())


def test_late_changes_are_applied_in_order_and_remembered():
    config = OptimizerParamConfig(**FLAT)
    first, second = extension(200), extension(300, 60)
    assert config is with_history(config, ())
    changed = with_history(config, (first, second))
    assert 300 == changed.lr_decay_steps
    assert [(config, first), (config.apply(first), second)] == changed.made_by()
    assert [] == config.made_by()


def test_a_pickled_config_keeps_its_late_changes_and_builds_its_plan_anew():
    config = spec()
    assert config.plan is config.plan
    changed = config.apply(extension())
    sent = pickle.loads(pickle.dumps(changed))  # noqa: S301
    assert (changed, changed.made_by()) == (sent, sent.made_by())
    assert config.parts() == config.__getstate__()
    assert changed.plan is not sent.plan


@pytest.mark.parametrize(
    "config, change, keys",
    [
        (spec(), extension(), {"field", "horizon"}),
        (spec(), extension(position=80), {"field", "horizon", "lengthen"}),
        (spec(), extension(position=90, keep="value"), {"field", "horizon", "keep"}),
        (OptimizerParamConfig(**FLAT), extension(), {"field", "horizon"}),
        (spec(), cooldown(), {"field", "steps", "shape", "end"}),
    ],
)
def test_an_argument_of_today_is_recorded_where_it_makes_a_difference(config, change, keys):
    after, recorded = with_change(config, change)
    assert keys == recorded.arguments.keys()
    assert after == with_history(config, [recorded])


@pytest.mark.parametrize(
    "end, is_refused", [(None, False), (0.5, False), (1.0, False), (1.0 + 5e-7, False), (1.1, True)]
)
@pytest.mark.parametrize("config", [spec(), OptimizerParamConfig(**FLAT)], ids=["spec", "entries"])
def test_a_cooldown_does_not_rise(config, end, is_refused):
    end_of_entries = end is not None and end > 1.0 and isinstance(config, OptimizerParamConfig)
    if is_refused or end_of_entries:
        with pytest.raises(ConfigError, match=r"lr is 1\.0 at this pos.* rise|must be at most"):
            with_change(config, cooldown(end))
    else:
        assert with_change(config, cooldown(end))[1].arguments["end"] == end


def test_a_recorded_cooldown_may_rise():
    assert 2.0 == spec().apply(cooldown(2.0)).fields["lr"](60)


def test_a_cooldown_that_rises_in_some_groups_is_refused():
    low = schedules.linear(1.0, 60)
    with pytest.raises(
        ConfigError, match=r"groups\[body\]\.lr is 0\.1666.* so 0\.5 would be a rise"
    ):
        with_change(spec(groups={"body": {"lr": low}}), cooldown(0.5))


def test_a_cooldown_of_another_field_is_not_compared_with_lr():
    after, _ = with_change(spec(), cooldown(0.5, field="momentum"))
    assert (0.5, 1.0) == (after.fields["momentum"](60), after.fields["lr"](60))


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"increment": 2, "unit": "steps"}, "increment=2: must be 1 for unit 'steps'"),
        ({"increment": 0}, "increment=0"),
        ({"updates": -1}, "updates=-1"),
    ],
)
def test_lint_refuses_what_no_run_can_be(arguments, message):
    with pytest.raises(ConfigError, match=message):
        spec().lint(**arguments)


def test_entries_have_no_others_that_a_checkpoint_may_bring():
    config = OptimizerParamConfig(**CONFIG)
    assert (False, 1) == (config.may_name(Path("eps")), config.version)
    assert config is config.unite(OptimizerParamConfig(**FLAT), None)
    assert frozenset() == spec().unused()
    names = [str(path) for path in config.entries()]
    assert [*OptimizerParamConfig.entry_names()] == names


@pytest.mark.parametrize(
    "arguments, word",
    [
        ({}, "checkpoint"),
        ({"use_checkpoint": False}, "strict"),
        ({"override": True, "use_checkpoint": False}, "config"),
    ],
)
def test_megatrons_booleans_are_a_policy(arguments, word):
    assert {"*": word} == OptimizerParamConfig(**CONFIG).parse_policy(None, **arguments).words
