"""Policies: which words are legal, and which word an entry has."""

from __future__ import annotations

import pytest

from dist_sched import ConfigError
from dist_sched._config.entries import OptimizerParamConfig
from dist_sched._config.path import Path
from dist_sched._config.policy import Policy
from dist_sched._config.specification import Specification
from helpers import CONFIG, HILL, UP

FULL = Specification.of(
    {"lr": HILL, "weight_decay": 0.5, "betas[0]": UP, "eps": 1e-8},
    {"head*": {"lr": UP, "betas[0]": 0.5}, "a.b": {"weight_decay": UP}},
)


def parse(policy, **booleans):
    return OptimizerParamConfig(**CONFIG).parse_policy(policy, **booleans)


@pytest.mark.parametrize(
    "booleans, word",
    [
        ({"use_checkpoint": True, "override": False}, "checkpoint"),
        ({"use_checkpoint": False, "override": True}, "config"),
        ({"use_checkpoint": False, "override": False}, "strict"),
        ({"use_checkpoint": None, "override": None}, "strict"),
    ],
    ids=str,
)
def test_megatrons_booleans_mean_a_policy(booleans, word):
    assert word == parse(None, **booleans).word(Path("max_lr"))


def test_both_booleans_are_an_error_in_megatrons_words():
    with pytest.raises(ConfigError, match=r"both override and use-checkpoint are set\."):
        parse(None, use_checkpoint=True, override=True)


@pytest.mark.parametrize(
    "booleans", [{"use_checkpoint": False}, {"use_checkpoint": False, "override": True}]
)
def test_a_boolean_that_differs_from_its_default_beside_a_policy_is_an_error(booleans):
    with pytest.raises(ConfigError, match="replaces"):
        parse("strict", **booleans)


@pytest.mark.parametrize("value", ["false", 2, "yes"])
def test_a_boolean_that_is_none_is_refused(value):
    with pytest.raises(ConfigError, match=r"use_checkpoint_opt_param_scheduler.*True or False"):
        parse(None, use_checkpoint=value)


@pytest.mark.parametrize(
    "policy, message",
    [
        ("checkpiont", "did you mean 'checkpoint'"),
        (3, "must be one of"),
        (["strict"], "must be one of"),
        ({"max_lr": "config"}, "does not cover init_lr"),
        (
            {"maxlr": "config", "*": "strict"},
            "'maxlr', which is not an entry; did you mean 'max_lr'",
        ),
        ({"max_lr": "mine", "*": "strict"}, "'mine' for 'max_lr'"),
        ({"max_lr": None, "*": "strict"}, "None for 'max_lr'"),
        ({1: "config", "*": "strict"}, "1, which is not an entry"),
        ({}, "does not cover "),
        ({"unit": "checkpoint"}, "'checkpoint' for 'unit': must be 'config' or 'strict'"),
        ({"unit": "mine"}, "'mine' for 'unit'"),
        ({"units": "config"}, "'units', which is not an entry; did you mean 'unit'"),
        ({"unit": "config", "max_lr": "config"}, "does not cover init_lr"),
        (
            {"max_ir": "config"},
            r"did you mean 'max_lr'\?; policy does not cover the other entries; add '\*'",
        ),
    ],
    ids=str,
)
def test_an_illegal_policy_is_refused_by_name(policy, message):
    with pytest.raises(ConfigError, match=message):
        parse(policy)


def test_a_policy_gives_each_entry_its_word_and_the_rest_the_star():
    policy = parse({"lr_decay_steps": "config", "*": "strict"})
    assert ("config", "strict") == (
        policy.word(Path("lr_decay_steps")),
        policy.word(Path("max_lr")),
    )


def test_a_policy_that_names_every_entry_needs_no_star():
    policy = parse(dict.fromkeys(OptimizerParamConfig.entry_names(), "config"))
    assert "config" == policy.word(Path("max_lr"))


@pytest.mark.parametrize(
    "entry, word",
    [
        ("lr.phases[0].steps", "strict"),
        ("lr.phases[1].steps", "config"),
        ("lr.phases[10].steps", "config"),
        ("lr", "config"),
        ("lr_mult", "checkpoint"),
        ("betas[0].phases[0].end", "strict"),
        ("betas[1].phases[0].end", "config"),
        ("groups[head.*].lr.phases[0].end", "strict"),
        ("groups[head.*].eps", "config"),
        ("groups[head].lr", "config"),
        ("eps", "checkpoint"),
    ],
)
def test_the_longest_beginning_of_a_path_gives_its_word(entry, word):
    words = {
        "lr": "config",
        "lr.phases[0]": "strict",
        "betas[0]": "strict",
        "betas": "config",
        "groups": "config",
        "groups[head.*].lr": "strict",
        "*": "checkpoint",
    }
    assert word == Policy(words).word(Path.parse(entry))


def test_a_policy_may_name_beginnings_and_the_changes_and_then_needs_no_star():
    paths = [*FULL.entries(), Path("history")]
    beginnings = ["lr", "weight_decay", "betas", "eps", "groups", "history"]
    policy = FULL.parse_policy(dict.fromkeys(beginnings, "config"))
    assert ["config"] == list({policy.word(path) for path in paths})
    assert "checkpoint" == policy.word(Path("momentum"))


@pytest.mark.parametrize(
    "name", ["", "l", "lr.", "lr.phases[", "lr.phases[0", "lr.phases[9]", "groups[head"]
)
def test_a_policy_that_names_no_beginning_is_refused(name):
    with pytest.raises(ConfigError, match="which is not an entry"):
        FULL.parse_policy({name: "config", "*": "strict"})


def test_an_entry_that_has_no_word_after_a_restriction_gets_the_one_that_all_others_had():
    policy = Policy({"max_lr": "config", "min_lr": "config"})
    restricted = policy.restricted_to([Path("max_lr"), Path("momentum")])
    assert {"max_lr": "config", "*": "config"} == restricted.words
    covered = policy.restricted_to([Path("max_lr")])
    assert {"max_lr": "config"} == covered.words


def test_a_policy_of_the_unit_alone_has_the_checkpoints_word_for_the_rest():
    policy = parse({"unit": "config"})
    assert ("checkpoint", True) == (policy.word(Path("max_lr")), policy.relabels)
    assert parse({"unit": "strict"}).words["*"] == "checkpoint"


@pytest.mark.parametrize("policy", ["checkpoint", "config", "strict", {"*": "config"}], ids=str)
def test_no_other_word_covers_the_unit(policy):
    assert not parse(policy).relabels


def test_the_unit_is_no_entry_whose_word_a_row_could_take():
    words = {"lr.phases[0].steps": "checkpoint", "unit": "config"}
    assert "checkpoint" == Policy(words).word_of_row(Path("weight_decay"))


def test_a_restricted_policy_keeps_the_word_for_the_unit():
    policy = Policy({"unit": "config", "max_lr": "strict", "*": "checkpoint"})
    assert {"unit": "config", "*": "checkpoint"} == policy.restricted_to([Path("lr")]).words


def test_a_word_for_a_field_with_a_dot_in_its_name_is_its_word():
    policy = Policy({"my.lr": "config", "*": "checkpoint"})
    assert "config" == policy.word_of_row(Path("my.lr"))


@pytest.mark.parametrize("policy", [None, "config", {"*": "strict", "history": "config"}], ids=str)
def test_a_policy_without_names_of_entries_reads_none(policy, monkeypatch):
    monkeypatch.delattr(Specification, "compare")
    assert Specification.of({"lr": UP}).parse_policy(policy).words["*"]


@pytest.mark.parametrize(
    "name, unused",
    [
        ("max_lr", False),
        ("lr", False),
        ("lr.phases[0]", False),
        ("lr.phases[1].steps.any", False),
        ("lr.phases[2]", True),
        ("momentum", True),
        ("history", False),
    ],
)
def test_a_name_beside_the_entries_has_no_effect(name, unused):
    entries = [Path.parse(one) for one in ("max_lr", "lr.phases[0].end", "lr.phases[1].steps")]
    policy = Policy({name: "config", "history": "strict", "*": "strict"})
    assert ([name] if unused else []) == policy.without_effect(entries)


def test_a_policy_replaces_megatrons_booleans():
    both = "use_checkpoint_opt_param_scheduler and override_opt_param_scheduler"
    with pytest.raises(ConfigError, match=f"^policy='strict' replaces {both}; remove these two$"):
        parse("strict", override=True, use_checkpoint=False)
    with pytest.raises(ConfigError, match=f"Set one of {both} to False, or use policy=$"):
        parse(None, override=True)


def test_twelve_entries_without_a_policy_are_all_named():
    names = ", ".join(OptimizerParamConfig.entry_names())
    with pytest.raises(ConfigError, match=f"^policy does not cover {names}; add these entries, or"):
        parse({})


def test_of_more_entries_without_a_policy_twelve_are_named():
    config = Specification.of({f"field{index}": 0.5 for index in range(14)})
    names = [str(path) for path in config.entries()]
    more = f"{', '.join(names[:12])} and {len(names) - 12} more; add"
    with pytest.raises(ConfigError) as caught:
        config.parse_policy({})
    assert f"policy does not cover {more}" in str(caught.value)
