"""Checkpoints of any library are read without a job, loaded in one, and written for Megatron."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from dist_sched import ConfigError, ReconcileError, StateError, checkpoint
from helpers import CONFIG, save_dcp, save_torch, state_at

STATE = state_at(60)


def test_of_a_large_folder_only_the_index_and_the_states_bytes_are_read(tmp_path, monkeypatch):
    big = {"model": {f"w{i}": torch.zeros(2**18) for i in range(8)}}
    folder = save_dcp({**big, "app": {"scheduler": STATE}}, tmp_path / "a")
    read = []
    local = type(fsspec.filesystem("file"))
    cat = local.cat_file

    def counted(self, path, **options):
        data = cat(self, path, **options)
        read.append((Path(path).name, len(data)))
        return data

    monkeypatch.setattr(local, "cat_file", counted)
    checkpoint.read_state(folder)
    assert {".metadata", "__0_0.distcp"} == {name for name, _ in read}
    assert sum(size for name, size in read if name != ".metadata") < 11 * 3000


def test_a_number_too_long_to_be_written_is_refused(tmp_path, floats):
    path = save_torch({"a": {10**5000: {}}}, tmp_path / "a.pt")
    with pytest.raises(StateError):
        checkpoint.read_state(path)
    for state in ({"last_epoch": 10**5000}, {"max_lr": 1.0, "num_steps": 10**5000}):
        with pytest.raises(StateError):
            checkpoint.load(floats.scheduler(), save_torch({"sched": state}, tmp_path / "a.pt"))


def test_shared_parts_are_looked_at_once(tmp_path):
    """Forty lists, each holding the one before twice, are two to the fortieth if looked at so."""
    nested = []
    for _ in range(40):
        nested = [nested, nested]
    path = save_torch({"scheduler": {"last_epoch": 1, "base_lrs": nested}}, tmp_path / "a.pt")
    with pytest.raises(StateError, match="too large, or nested too deeply"):
        checkpoint.read_state(path)


def test_numbers_in_tensors_and_numpy_scalars_are_numbers(tmp_path):
    plain = {key: value for key, value in STATE.items() if key != "dist_sched"}
    strange = {
        **plain,
        "num_steps": torch.tensor(60),
        "max_lr": np.float64(1.0),
        "min_lr": np.float32(0.5),
    }
    expected = {**plain, "min_lr": 0.5}
    assert expected == checkpoint.read_state(save_torch(strange, tmp_path / "a.pt"))[0]
    assert expected == checkpoint.read_state(save_dcp({"sched": strange}, tmp_path / "a"))[0]


def test_load_loads_a_checkpoint_and_says_from_where(tmp_path, floats, caplog):
    caplog.set_level(logging.INFO)
    folder = save_dcp({"app": {"scheduler": STATE}}, tmp_path / "a")
    fresh = floats.scheduler()
    where = checkpoint.load(fresh, folder, expected_position=60)
    assert (60, [0.55]) == (fresh.num_steps, fresh.get_last_lr())
    assert f"loaded the scheduler from {where} at position 60" in caplog.text


def test_the_report_of_a_load_names_the_end_of_a_long_path_in_lines_under_100_columns(
    tmp_path, floats, caplog
):
    folder = save_dcp({"scheduler": STATE}, tmp_path / ("long" * 20) / "step-60")
    checkpoint.load(floats.scheduler(max_lr=0.5), folder)
    (record,) = [one for one in caplog.records if "loaded the scheduler" in one.message]
    first, second, *_ = record.message.splitlines()
    assert first.endswith("step-60/.metadata, key 'scheduler' (dist_sched)")
    assert "at position 60; 1 entry differs" == second
    assert 100 > max(map(len, record.message.splitlines()))


def test_load_refuses_another_position_and_changes_nothing(tmp_path, floats):
    folder = save_dcp({"app": {"scheduler": STATE}}, tmp_path / "a")
    fresh = floats.scheduler()
    with pytest.raises(StateError, match="position is 60, but the trainer's is 61"):
        checkpoint.load(fresh, folder, expected_position=61)
    assert 0 == fresh.num_steps


def test_an_illegal_expected_position_is_a_config_error(tmp_path, floats):
    path = save_torch(STATE, tmp_path / "a.pt")
    with pytest.raises(ConfigError, match="expected_position"):
        checkpoint.load(floats.scheduler(), path, expected_position=-1)


def test_load_follows_the_policy(tmp_path, floats):
    path = save_torch(STATE, tmp_path / "a.pt")
    with pytest.raises(ReconcileError, match=r"max_lr is 2\.0 in the config and 1\.0"):
        checkpoint.load(floats.scheduler(max_lr=2.0, policy="strict"), path)
    fresh = floats.scheduler(max_lr=2.0, policy="config")
    checkpoint.load(fresh, path)
    assert (60, 2.0) == (fresh.num_steps, fresh.max_lr)


def test_a_torn_state_is_read_as_it_is_and_mended_by_the_load(tmp_path, floats, caplog):
    path = save_torch({"s": {**STATE, "num_steps": 61}}, tmp_path / "a.pt")
    assert 61 == checkpoint.read_state(path)[0]["num_steps"]
    fresh = floats.scheduler(max_lr=0.5)
    checkpoint.load(fresh, path)
    assert 60 == fresh.num_steps
    assert "inconsistent: num_steps" in caplog.text


def test_a_newer_version_is_refused(tmp_path, floats):
    text = {**json.loads(STATE["dist_sched"]), "version": 3}
    path = save_torch({"s": {**STATE, "dist_sched": json.dumps(text)}}, tmp_path / "a.pt")
    with pytest.raises(StateError, match="version 3"):
        checkpoint.load(floats.scheduler(), path)


def test_a_megatron_state_has_ten_keys_and_the_log_names_what_they_cannot_carry(caplog):
    state = checkpoint.to_megatron_state(STATE)
    assert {key: value for key, value in STATE.items() if key != "dist_sched"} == state
    assert "do not include init_lr=0.0, unit='steps'" in caplog.text


def test_the_megatron_state_of_a_torn_state_is_what_its_text_says():
    assert 60 == checkpoint.to_megatron_state({**STATE, "num_steps": 61})["num_steps"]


def test_a_state_without_the_ten_keys_makes_no_megatron_state():
    with pytest.raises(StateError, match="min_lr"):
        checkpoint.to_megatron_state({"last_batch_iteration": 7})


def test_reading_starts_neither_torch_nor_a_process_group(tmp_path):
    path = save_dcp({"scheduler": STATE}, tmp_path / "a")
    program = (
        "import sys; from dist_sched import checkpoint\n"
        f"print(checkpoint.read_state({str(path)!r})[0]['num_steps'], 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "60 False\n" == done.stdout


SAVES = """
import sys, torch, warnings
warnings.simplefilter("ignore")
import torch.distributed.checkpoint as dcp
from dist_sched import OptimizerParamScheduler
kind, folder, config = sys.argv[1], sys.argv[2], eval(sys.argv[3])
optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
scheduler = OptimizerParamScheduler(optimizer, **config)
weight = torch.zeros(2**20)
for position in range(1, 10**6):
    scheduler.step()
    if kind == "dcp":
        dcp.save({"w": weight, "scheduler": scheduler}, checkpoint_id=f"{folder}/step-{position}")
    else:
        torch.save({"w": weight, "s": scheduler.state_dict()}, f"{folder}/step-{position}.pt")
    print(position, flush=True)
"""


@pytest.mark.parametrize("kind", ["dcp", "file"])
def test_after_a_kill_at_any_moment_the_last_complete_state_is_read(tmp_path, kind):
    command = [sys.executable, "-c", SAVES, kind, str(tmp_path), repr(CONFIG)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for moment in range(12):
                printed = int(process.stdout.readline())
                time.sleep(moment / 1000)
                process.send_signal(signal.SIGSTOP)  # what a kill now would leave behind
                assert_complete(checkpoint.read_state(tmp_path)[0], printed)
                process.send_signal(signal.SIGCONT)
        finally:
            process.kill()
        printed = max([printed, *map(int, process.stdout.read().split())])
    state, _ = checkpoint.read_state(tmp_path)
    assert_complete(state, printed)
    assert state["num_steps"] <= printed + 1


def assert_complete(state, printed):
    assert state["num_steps"] == json.loads(state["dist_sched"])["position"]
    assert printed <= state["num_steps"]
