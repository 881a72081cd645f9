"""Updates with every kind of torch's optimizers are on the curve, and so are resumed ones."""

from __future__ import annotations

import pytest
import torch

from training_helpers import SAVED, as_float32, curves

pytestmark = [pytest.mark.distributed, pytest.mark.timeout(300)]

PROGRAM = "optimizer_kinds.py"
KINDS = [
    "foreach",
    "fused",
    "tensor lr",
    "fused, tensor lr",
    "sgd",
    "adafactor",
    "radam",
    "muon and adamw",
    "in backward",
]
OF_CUDA = [*KINDS, "capturable", "capturable, tensor lr"]


def whole_and_resumed(torchrun, folder, kinds, device="cpu"):
    """Return by kind what was held in one process, and in another after a load."""
    [whole] = torchrun(PROGRAM, 1, "save", folder, device, *kinds, timeout=120)
    [resumed] = torchrun(PROGRAM, 1, "load", folder, device, *kinds, timeout=120)
    return {kind: [whole[kind], resumed[kind]] for kind in kinds}


def expected(kind):
    held = as_float32 if "tensor" in kind else list
    return [held(curves()), held(curves(begin=SAVED))]


@pytest.fixture(scope="module")
def runs(torchrun, tmp_path_factory):
    return whole_and_resumed(torchrun, tmp_path_factory.mktemp("optimizers"), KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_on_the_curve_across_a_save_and_a_new_process(kind, runs):
    assert expected(kind) == runs[kind]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_updates_on_a_gpu_are_on_the_curve_across_a_save_and_a_new_process(torchrun, tmp_path):
    runs = whole_and_resumed(torchrun, tmp_path, OF_CUDA, "cuda")
    assert {kind: expected(kind) for kind in OF_CUDA} == runs
