"""The cells of README's table for torchtitan: each is measured on its own scheduler."""

from __future__ import annotations

import logging

import pytest

pytest.importorskip("torchtitan", reason="torchtitan needs Python 3.11")

from torch import nn
from torchtitan.components.optimizer import LRSchedulersContainer, default_adamw

from helpers import held
from peers_table import EDITED, HORIZON, SAVED_AT, WARMUP, cell

# At every load it asks torch's LambdaLR for its lr, which warns.
pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore:To get the last")]


def build(horizon=HORIZON, warmup=WARMUP, decay_type="cosine"):
    """Return torchtitan's optimizers and its scheduler of them."""
    optimizers = default_adamw(lr=1.0).build(model_parts=[nn.Linear(2, 2, bias=False)])
    config = LRSchedulersContainer.Config(warmup_steps=warmup, decay_type=decay_type)
    return optimizers, config.build(optimizers=optimizers, training_steps=horizon)


def update(optimizers, scheduler):
    """Make an update, and return the lr that was logged before it, and the one that it used."""
    (used,) = {lr for optimizer in optimizers for lr in held(optimizer)}
    (logged,) = scheduler.get_metrics().values()
    optimizers.step()
    scheduler.step()
    return logged, used


@pytest.fixture
def resumed(caplog):
    """Return a function that resumes at update 60; what is logged from then on is in `caplog`."""
    caplog.set_level(logging.DEBUG)

    def run(edited, *, loads=1):
        parts, state = _first_job(edited)
        caplog.clear()
        for _ in range(loads):
            parts[1].load_state_dict(state)
        return parts

    return run


def _first_job(edited):
    optimizers, scheduler = build()
    for _ in range(SAVED_AT):
        update(optimizers, scheduler)
    later = build(edited)
    for theirs, loaded in zip(later[0], optimizers, strict=True):
        theirs.load_state_dict(loaded.state_dict())
    return later, scheduler.state_dict()


@cell("Resume with a longer horizon", "torchtitan", "lr × 2, nothing logged")
@cell("Lr logged after an edited resume", "torchtitan", "first update uses another lr")
def test_an_edited_horizon_moves_lr_and_the_first_update_uses_another(resumed, caplog):
    parts = resumed(EDITED)
    (logged, used), (_, second) = (update(*parts) for _ in range(2))
    assert pytest.approx([0.83, 0.41, 0.83], abs=0.01) == [logged, used, second]
    assert "" == caplog.text


@cell("Optimizer restored, scheduler not", "torchtitan", "warmup replays silently")
def test_warmup_replays_without_the_schedulers_state(resumed, caplog):
    parts = resumed(HORIZON, loads=0)
    used = [update(*parts)[1] for _ in range(3)]
    assert pytest.approx([0.41, 0.2, 0.3], abs=0.01) == used
    assert "" == caplog.text


@cell("Checkpoint loaded twice", "torchtitan", "fine")
def test_a_second_load_changes_nothing(resumed):
    once, twice = (resumed(HORIZON, loads=loads) for loads in (1, 2))
    assert [update(*once) for _ in range(3)] == [update(*twice) for _ in range(3)]


@cell("Ranks resume with different configs", "torchtitan", "each rank its own lr, silently")
def test_ranks_with_different_configs_use_different_lr(resumed, caplog):
    """Nothing is communicated, so two schedulers of one process do what two ranks do."""
    ranks = [resumed(horizon) for horizon in (HORIZON, EDITED)]
    second = [[update(*parts)[1] for _ in range(2)][1] for parts in ranks]
    assert pytest.approx([0.39, 0.83], abs=0.01) == second
    assert "" == caplog.text


@cell("Resume on another number of processes", "torchtitan", "fine: it counts updates")
def test_the_state_is_the_number_of_updates():
    optimizers, scheduler = build()
    update(optimizers, scheduler)
    assert {"last_epoch": 1} == scheduler.state_dict()


@cell("Past the end of a decay", "torchtitan", "linear goes below 0")
def test_a_linear_decay_goes_below_0():
    parts = build(decay_type="linear")
    assert -0.3 > [update(*parts)[1] for _ in range(HORIZON + 51)][-1]


@cell("Weight decay of a no-decay group", "torchtitan", "no schedule for weight decay")
def test_weight_decay_is_left_alone():
    optimizers, scheduler = build()
    before = [held(optimizer, "weight_decay") for optimizer in optimizers]
    update(optimizers, scheduler)
    assert before == [held(optimizer, "weight_decay") for optimizer in optimizers]


@cell("Misspelt decay style", "torchtitan", "in Python: error after the warmup")
def test_an_unknown_style_is_refused_after_the_warmup():
    parts = build(decay_type="cosinus")
    for _ in range(WARMUP):
        update(*parts)
    with pytest.raises(ValueError, match="Unknown lr_decay_type: cosinus"):
        update(*parts)
