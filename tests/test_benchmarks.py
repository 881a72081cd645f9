"""The benchmarks count and compare what they say, and a bar that is missed is shown as missed."""

from __future__ import annotations

import importlib

import pytest

from benchmarks import __main__ as program
from benchmarks import index, load, optimizers, peers, preview, ranks, state, step, storage, table
from page_helpers import ROOT
from scripts import soak


@pytest.fixture(autouse=True)
def without_transformers(monkeypatch):
    monkeypatch.setattr(peers, "is_here", lambda name: name != peers.TRANSFORMERS)


def figures(name):
    result = importlib.import_module(f"benchmarks.{name}").result(is_quick=True)
    return {row.what: row for row in result.rows}


@pytest.mark.parametrize(
    "ours, theirs, most, verdict",
    [
        (1.0, 2.0, 0.5, "met"),
        (1.1, 2.0, 0.5, "MISSED"),
        (3.0, None, 2.0, "MISSED"),
        (3, 1, None, ""),
    ],
)
def test_a_row_says_whether_its_bar_is_met(ours, theirs, most, verdict):
    assert verdict == table.Row(what="a", ours=ours, theirs=theirs, most=most).cells()[2]


def test_a_missed_bar_is_counted_and_shown_with_its_figure():
    row = table.Row(what="a step", ours=3.0, against="LambdaLR", theirs=2.0, most=0.5)
    text = program.report([table.Result(title="", rows=[row])], is_markdown=False)
    assert "0 bars are met, 1 are missed." in text
    assert " 1.50  ≤ 0.50  MISSED  a step  3 µs  2 µs LambdaLR" in text


def test_what_was_not_measured_is_neither_met_nor_missed():
    row = table.Row(what="a GPU", ours=None, most=1, reason="no GPU")
    assert row.is_met is None
    assert "not measured: no GPU" in row.cells()


def test_the_generated_part_of_the_page_is_replaced_and_nothing_else():
    page = f"before\n{program.BEGIN}\nold\n{program.END}\nafter"
    assert f"before\n{program.BEGIN}\n\nnew\n\n{program.END}\nafter" == program.written(page, "new")
    with pytest.raises(ValueError, match="must have the lines"):
        program.written("", "new")


def test_the_page_has_the_part_that_is_generated():
    text = (ROOT / "docs/benchmarks.md").read_text()
    assert text.count(program.BEGIN) == text.count(program.END) == 1


def test_every_subject_is_a_module():
    names = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert {*program.SUBJECTS} <= names


@pytest.mark.parametrize("name", step.SCENARIOS)
def test_every_scheduler_of_a_scenario_is_timed(name, monkeypatch):
    monkeypatch.setattr(step.timing, "BATCH_SECONDS", 1e-5)
    cell = step.measure(name, 2, 1)
    assert {*step.SCENARIOS[name].timed} == {*cell.samples}
    assert cell.row().theirs == min(cell.medians[each] for each in step.SCENARIOS[name].equals)


@pytest.mark.parametrize("name", ["own-max-lr", "fields", "tensor-lr"])
def test_bars_apply_from_a_number_of_groups_on(name):
    bars = {
        "own-max-lr": [1.3, 0.85, 0.75],
        "fields": [1.6, 0.7, 0.5],
        "tensor-lr": [None, None, 0.25],
    }
    assert bars[name] == [step.SCENARIOS[name].bar(groups) for groups in (1, 10, 10_000)]


def test_a_step_is_the_same_for_all_of_many_optimizers():
    assert {peers.OURS, *optimizers.PEERS} == {*optimizers.measure(3, 1)}


def test_the_state_has_eleven_items_or_two_on_any_number_of_groups():
    assert [11, 2] == [state.measure(name, 10)[0] for name in (peers.OURS, peers.PHASES)]
    assert state.measure(peers.OURS, 1) == state.measure(peers.OURS, 10)
    assert state.measure(peers.OURS, 1)[1] < 2_000


def test_a_preview_has_the_bits_of_training():
    assert [0, 0] == [preview.differences(one, 500) for one in preview.curves(500).values()]


def test_an_index_of_many_shards_is_read_with_its_scheduler(tmp_path):
    index.write(tmp_path, 1_000)
    for how in (index.OURS, index.PICKLE):
        assert {"seconds", "GiB"} == {*index.read(how, tmp_path)}


def test_a_gpu_that_is_absent_is_said():
    rows = figures("gpu").values()
    assert [] == [row for row in rows if row.ours is None and "no GPU" not in row.reason]


def test_the_gpus_table_counts_what_a_step_launches():
    from benchmarks import gpu

    found = gpu.measure("cpu", peers.FLOOR, 3)
    assert (3, 0) == (found["kernels and copies"], found["waits"])


@pytest.mark.distributed
def test_loads_open_each_file_once_and_communicate_twice_on_any_number_of_ranks():
    one, two = (ranks.run(size, load.work, [(2, 1)])[0] for size in (1, 2))
    assert (1, 1) == (two.broadcasts, two.gathers)
    assert one.broadcast_bytes == two.broadcast_bytes
    assert (2, load.TENSORS + 2) == (two.items, two.all_items)
    opened = ranks.run(2, storage.work)
    assert ".metadata" == opened["ours"][0]
    assert 3 == len(opened["ours"]) < len(opened["dcp.load"])


def test_a_long_run_neither_drifts_nor_grows(capsys):
    assert 0 == soak.main(["--steps", "20000", "--every", "2000", "--trace"])
    assert 2 == capsys.readouterr().out.count("20,000 steps, 10 times compared, saved and loaded")


def test_a_long_run_that_drifts_is_found(capsys, monkeypatch):
    monkeypatch.setattr(soak, "held", id)
    assert 1 == soak.main(["--steps", "20", "--every", "10", "--scheduler", "ParamScheduler"])
    assert "at 10: stepped to" in capsys.readouterr().out
