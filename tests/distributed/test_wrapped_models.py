"""Updates in every wrapper of torch's are on the curve, and so are those of new processes."""

from __future__ import annotations

import pytest

from training_helpers import SAVED, curves

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

PROGRAM = "wrapped_models.py"
KINDS = [
    "ddp",
    "fsdp1",
    "fsdp2",
    "hsdp",
    "flat",
    "offload",
    "async",
    "full",
    "zero",
    "pipeline",
    "sub-group",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("wrapped_models")


@pytest.fixture(scope="module")
def whole(torchrun, folder):
    """Return what each of four ranks held, and save."""
    return torchrun(PROGRAM, 4, "save", folder, timeout=120, aborts=True)


@pytest.fixture(scope="module")
def resumed(torchrun, folder, whole):  # noqa: ARG001 - it saves
    """Return what each of two ranks held, in new processes."""
    return torchrun(PROGRAM, 2, "load", folder, timeout=120, aborts=True)


def on_the_curve(ranks, begin):
    """Return what the groups of every rank must hold; none are where a rank has no optimizer."""
    return [curves(values[0], begin) if values else [] for values in ranks]


@pytest.mark.parametrize("kind", KINDS)
def test_every_update_has_lr_and_weight_decay_of_the_curve(kind, whole):
    ranks = [result[kind] for result in whole]
    assert on_the_curve(ranks, 0) == ranks


@pytest.mark.parametrize("kind", KINDS)
def test_half_as_many_new_processes_go_on_with_the_same_bits(kind, resumed):
    ranks = [result[kind] for result in resumed]
    assert on_the_curve(ranks, SAVED) == ranks


def test_stages_of_a_pipeline_have_groups_of_their_own(whole, resumed):
    groups = [[[*result["pipeline"][0]] for result in ranks] for ranks in (whole, resumed)]
    ends = ["decay", "no_decay"]
    assert [[ends, ["decay"], ends, ["no_decay", "head"]], [ends, [*ends, "head"]]] == groups


def test_ranks_outside_of_a_sub_group_train_nothing(whole):
    assert [16, 16, 0, 0] == [len(result["sub-group"]) for result in whole]
