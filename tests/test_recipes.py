"""Every recipe of `examples/recipes` has its source's values, and goes on from every split."""

from __future__ import annotations

import logging
import re

import pytest

from recipe_helpers import (
    EXPECTED,
    FOLDER,
    HORIZONS,
    NAMES,
    build,
    config_of,
    held,
    held_at,
    positions_of,
)

EVERY = pytest.mark.parametrize("name", NAMES)
SPLITS = 12


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.ERROR, "dist_sched")


def lines_of(name):
    """Return the lines of a recipe that are not blank or comments."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]


def test_there_are_twenty_recipes_and_the_values_of_each():
    assert sorted(EXPECTED) == NAMES
    assert len(NAMES) >= 20


@EVERY
def test_a_recipe_has_at_most_ten_lines_and_names_its_source(name):
    assert len(lines_of(name)) <= 10
    assert "\n# Source: " in (FOLDER / f"{name}.yaml").read_text()


def test_the_page_lists_every_recipe():
    page = (FOLDER.parents[1] / "docs" / "published-runs.md").read_text()
    assert [f"[{name}.yaml](../examples/recipes/{name}.yaml)" for name in NAMES] == re.findall(
        r"^\| (\[.*?\)) \|", page, re.MULTILINE
    )


@EVERY
def test_every_field_and_extra_is_what_the_source_computes(name):
    scheduler, positions = build(name), positions_of(name)
    expected = [EXPECTED[name](position) for position in positions]
    found = [held_at(scheduler, position) for position in positions]
    for key in expected[0]:
        peak = max(values[key] for values in expected)
        differing = [
            (position, values[key], others[key])
            for position, values, others in zip(positions, expected, found, strict=True)
            if not abs(values[key] - others[key]) <= 1e-12 * peak
        ]
        assert [] == differing[:3], key


@EVERY
def test_lr_ends_where_the_run_of_the_source_does(name):
    assert HORIZONS[name] == config_of(name).fields["lr"].horizon


@EVERY
def test_a_recipe_schedules_what_is_compared_with_its_source(name):
    config = config_of(name)
    assert EXPECTED[name](0).keys() == {*config.fields, *config.extras}


@EVERY
def test_sizes_are_ints(name):
    sizes = {"batch_size", "sequence_length", "window_short", "window_long"}
    assert all(type(value) is int for key, value in build(name).extras.items() if key in sizes)


@EVERY
def test_a_run_goes_on_from_every_split(name):
    scheduler, positions = build(name), positions_of(name)
    splits = positions[:: max(1, len(positions) // SPLITS)]
    run, states = [], []
    for position in splits:
        run.append(held_at(scheduler, position))
        states.append(scheduler.state_dict())
    for index, state in enumerate(states):
        resumed = build(name)
        resumed.load_state_dict(state)
        assert run[index] == held(resumed)
        assert run[index:] == [held_at(resumed, position) for position in splits[index:]]


STARTS_AT_ZERO = {"first-lr-zero"}
LINT = {
    "adamc": STARTS_AT_ZERO,
    "apertus_70b": {*STARTS_AT_ZERO, "field-ends-elsewhere", "jump"},
    "axolotl_quadratic": STARTS_AT_ZERO,
    "big_vision_vit_g": STARTS_AT_ZERO,
    "deepseek_v3": {*STARTS_AT_ZERO, "jump"},
    "falcon_mamba_7b": {"jump"},
    "kimi_k2": STARTS_AT_ZERO,
    "llama3_405b": STARTS_AT_ZERO,
    "marin_8b": {*STARTS_AT_ZERO, "jump"},
    "minicpm_2b": STARTS_AT_ZERO,
    "modded_nanogpt": {"field-outlasts-lr", "jump"},
    "olmo2_7b": {"jump"},
    "olmo3_7b": {"jump"},
    "olmo_core_wsds": {"jump"},
    "smollm3_3b": STARTS_AT_ZERO,
}
"""The codes of what lint finds in recipes, as their sources have it."""


@EVERY
def test_what_lint_finds_is_what_the_source_does(name):
    assert LINT.get(name, set()) == {finding.code for finding in build(name).lint()}


def test_the_other_groups_of_nanochat_keep_their_ratios_and_weight_decays():
    scheduler = build("nanochat_d12")
    scheduler.seek(2520)
    groups = scheduler.optimizer.param_groups[1:]
    expected = [0.05 * own for own in (0.008, 0.3, 0.15, 0.005, 0.5)]
    assert pytest.approx(expected, rel=1e-12) == [group["lr"] for group in groups]
    assert [0.01, 0.001, 0.01, 0.05, 0.0] == [group["weight_decay"] for group in groups]


def test_the_groups_of_modded_nanogpt_are_multiplied():
    scheduler = build("modded_nanogpt")
    scheduler.seek(450)
    assert [1.52, 0.008 * 1.52] == [group["lr"] for group in scheduler.optimizer.param_groups]
