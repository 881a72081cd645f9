"""The values of the update just made, in one line to each kind of logger (FIELD.md 21)."""

from __future__ import annotations

import io
import json

import pytest

from dist_sched import ParamScheduler, adapters, schedules
from dist_sched.errors import ConfigError
from helpers import sgd

FALL = schedules.linear(1.0, 10)
USED = {"lr/body": 1.0}


@pytest.fixture
def scheduler():
    """Return a scheduler after one update, whose lr was 1.0."""
    made = ParamScheduler(sgd({"name": "body"}), {"lr": FALL})
    made.step()
    return made


class Writer:
    def __init__(self):
        self.scalars = []

    def add_scalar(self, tag, scalar_value, global_step):
        self.scalars.append((tag, scalar_value, global_step))


def test_without_a_logger_they_are_returned(scheduler):
    assert adapters.metrics(scheduler) == USED


def test_those_of_an_adapter_are_its_schedulers(scheduler):
    assert adapters.metrics(adapters.as_lr_scheduler(scheduler)) == USED


def test_a_summary_writer_gets_each_at_the_position(scheduler):
    writer = Writer()
    adapters.metrics(scheduler, writer)
    assert [("lr/body", 1.0, 1)] == writer.scalars


def test_a_function_gets_a_dict_of_its_own(scheduler):
    logged = []
    adapters.metrics(scheduler, logged.append)
    logged[0].clear()
    assert adapters.metrics(scheduler) == USED


def test_a_path_gets_a_line_of_json_each_time(scheduler, tmp_path):
    path = tmp_path / "lr.jsonl"
    adapters.metrics(scheduler, path)
    scheduler.step()
    adapters.metrics(scheduler, str(path))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [{"step": 1, "lr/body": 1.0}, {"step": 2, "lr/body": 0.9}] == lines


def test_a_file_gets_a_line_of_json(scheduler):
    file = io.StringIO()
    adapters.metrics(scheduler, file)
    assert file.getvalue() == '{"step": 1, "lr/body": 1.0}\n'


def test_several_loggers_get_the_same_at_the_trainers_own_step(scheduler):
    writer, file = Writer(), io.StringIO()
    adapters.metrics(scheduler, writer, file, step=40)
    assert [("lr/body", 1.0, 40)] == writer.scalars
    assert json.loads(file.getvalue()) == {"step": 40, "lr/body": 1.0}


def test_anything_else_is_refused(scheduler):
    with pytest.raises(ConfigError, match="must be a SummaryWriter, a function that takes a dict"):
        adapters.metrics(scheduler, 3)
