"""`from_peer` reads the words of the peer that it is told."""

from __future__ import annotations

import pickle

import pytest

from dist_sched import ConfigError, Schedule, schedules
from dist_sched._peers.registry import PEERS

BLOCKS = {
    "transformers": {"learning_rate": 1.0, "max_steps": 100},
    "torchtitan": {"lr": 1.0, "training_steps": 100},
    "olmo_core": {"type": "cos_with_warmup", "lr": 1.0, "max_steps": 100, "warmup": 10},
    "nanotron": {"learning_rate": 1.0, "lr_warmup_style": "linear", "lr_decay_steps": 9},
    "deepspeed": {"type": "WarmupLR", "params": {"warmup_max_lr": 1.0}},
}


def test_the_blocks_are_of_every_peer():
    assert set(PEERS) == set(BLOCKS)


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_built_is_plain_data(name):
    built = schedules.from_peer(name, BLOCKS[name])
    assert built == Schedule.from_dict(built.to_dict()) == pickle.loads(pickle.dumps(built))  # noqa: S301


@pytest.mark.parametrize("name", BLOCKS)
def test_an_unknown_key_is_refused_under_the_name_of_the_peer(name):
    with pytest.raises(ConfigError, match=f"^{name}: .*'colour' is not known here"):
        schedules.from_peer(name, {**BLOCKS[name], "colour": 1})


@pytest.mark.parametrize("name", BLOCKS)
def test_what_is_no_mapping_is_refused(name):
    with pytest.raises(ConfigError, match=f"^{name}: block=3: must be a mapping"):
        schedules.from_peer(name, 3)


@pytest.mark.parametrize("name", ["hf", "OLMo-core", None])
def test_an_unknown_peer_is_refused(name):
    with pytest.raises(ConfigError, match=r"name=.*: must be one of 'transformers', 'torchtitan'"):
        schedules.from_peer(name, {})


def test_a_block_that_is_nested_too_deeply_is_refused():
    block: dict = {"type": "sequential", "lr": 1.0, "max_steps": 9}
    for _ in range(100):
        block = {**block, "schedulers": [block], "schedulers_max": [3]}
    with pytest.raises(ConfigError, match="olmo_core: is nested deeper than"):
        schedules.from_peer("olmo_core", block)
