"""ignite's engine, checkpoints and events with a handler of this library."""

from __future__ import annotations

import pytest
from ignite.engine import Engine, Events

from dist_sched import adapters
from helpers import adamw, held, param_scheduler, sgd

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]


def test_the_example_is_exact_in_one_go_and_in_two_processes(check_example):
    check_example("ignite_trainer.py")


def build(event):
    """Return a trainer whose scheduler is attached to an event, the handler, and what it used."""
    optimizer, used = sgd(), []
    handler = adapters.ignite.handler(param_scheduler(optimizer), increment=2)

    def process(_engine, batch):
        used.append(held(optimizer)[0])
        if batch:
            optimizer.step()

    trainer = Engine(process)
    trainer.add_event_handler(event, handler)
    return trainer, handler, used


EACH_EVENT = pytest.mark.parametrize(
    "event", [Events.ITERATION_STARTED, Events.ITERATION_COMPLETED], ids=["started", "completed"]
)


@EACH_EVENT
def test_every_update_has_its_value_at_either_end_of_an_iteration(event):
    trainer, handler, used = build(event)
    trainer.run([True] * 5)
    assert [0.0, 0.25, 0.5, 0.75, 1.0] == used
    assert 10 == handler.state_dict()["num_steps"]


@EACH_EVENT
def test_an_iteration_without_an_update_is_not_counted(event):
    trainer, handler, used = build(event)
    trainer.run([True, False, False, True])
    assert [0.0, 0.25, 0.25, 0.25] == used
    assert 4 == handler.state_dict()["num_steps"]


@EACH_EVENT
def test_a_state_goes_on_at_the_next_update(event):
    trainer, handler, _ = build(event)
    trainer.run([True] * 2)
    other, loaded, used = build(event)
    loaded.load_state_dict(handler.state_dict())
    other.run([True] * 2)
    assert [0.5, 0.75] == used


def test_ignites_own_handler_refuses_a_scheduler():
    from ignite.handlers import LRScheduler

    with pytest.raises(TypeError):
        LRScheduler(param_scheduler(adamw()))
