"""Updates with the optimizers of other packages are on the curve, and so are resumed ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from training_helpers import SAVED, as_float32, curves

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).parents[1] / "distributed" / "programs" / "optimizer_kinds.py"
KINDS = {"torchao": as_float32, "schedule-free": list}
"""By kind, what it holds of a curve: torchao makes tensors of floats."""


@pytest.fixture(scope="module")
def runs(torchrun, tmp_path_factory):
    folder = tmp_path_factory.mktemp("optimizers")
    arguments = (folder, "cpu", *KINDS)
    return [torchrun(PROGRAM, 1, what, *arguments, timeout=120)[0] for what in ("save", "load")]


@pytest.mark.parametrize("kind", KINDS)
def test_updates_are_on_the_curve_across_a_save_and_a_new_process(kind, runs):
    whole, resumed = (run[kind] for run in runs)
    assert KINDS[kind](curves()) == whole
    assert KINDS[kind](curves(begin=SAVED)) == resumed
