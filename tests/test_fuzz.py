"""Damaged and hostile input ends in a typed error, and scripts/fuzz.py would see anything else."""

from __future__ import annotations

import os
import random
import socket
import subprocess

import pytest

import fuzz
import fuzz_surfaces
import fuzz_watch
from dist_sched import StateError, checkpoint, from_config
from dist_sched._optim.base import Scheduler
from dist_sched._storage import finding, pickles

SEED, CASES = 1, 2000


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return fuzz_surfaces.prepared(tmp_path_factory.mktemp("fuzz"))


def findings(sources, act, monkeypatch, surface="state"):
    """Return the findings of a case that does something."""
    monkeypatch.setitem(fuzz_surfaces.SURFACES, surface, (lambda *_: act, 100))
    monkeypatch.setattr(fuzz, "surface_of", lambda _: surface)
    found = fuzz.try_case(SEED, 0, sources).finding
    return [found.reason] if found else []


@pytest.mark.timeout(300)
def test_two_thousand_mutated_inputs_end_in_typed_errors_alone(sources):
    outcomes = list(fuzz.run(SEED, range(CASES), sources))
    assert [] == [outcome.finding for outcome in outcomes if outcome.finding]
    assert {*fuzz_surfaces.SURFACES} == {outcome.surface for outcome in outcomes}
    assert {"accepted", "ConfigError", "StateError", "TruncatedError"} <= {
        o.ended for o in outcomes
    }


def test_a_case_is_the_same_again(sources):
    first = list(fuzz.run(7, range(20), sources))
    again = [next(fuzz.run(7, [number], sources)) for number in (3, 11)]
    expected = [(first[number].surface, first[number].ended) for number in (3, 11)]
    assert expected == [(outcome.surface, outcome.ended) for outcome in again]


# What it would see


def test_an_untyped_error_is_a_finding(sources, monkeypatch):
    def broken(*_):
        raise KeyError("x")

    monkeypatch.setattr(checkpoint, "find", broken)
    reasons = findings(
        sources,
        lambda: fuzz_surfaces.attempt(lambda: checkpoint.read_state(sources.folder)),
        monkeypatch,
    )
    assert ["FoundError: KeyError is not one of the errors"] == reasons


def test_a_long_error_is_a_finding():
    class LongError(StateError):
        def __str__(self):
            return "x" * 4001

    def fails():
        raise LongError

    with pytest.raises(fuzz_surfaces.FoundError, match="an error of 4,001 characters"):
        fuzz_surfaces.attempt(fails)


def fails_late(scheduler, field):
    """Return a load that changes something, and then raises."""

    def load(*_, **__):
        if field == "position":
            scheduler.seek(9)
        else:
            scheduler.optimizer.param_groups[0]["lr"] = 7.0
        raise StateError("late")

    return load


@pytest.mark.parametrize("field", ["position", "lr"])
def test_a_failed_load_that_changed_something_is_a_finding(monkeypatch, field):
    scheduler = from_config(fuzz_surfaces.driven(), fuzz_surfaces.ENTRIES)
    monkeypatch.setattr(Scheduler, "load_state_dict", fails_late(scheduler, field))
    with pytest.raises(fuzz_surfaces.FoundError, match="a failed load changed the scheduler"):
        fuzz_surfaces.load(scheduler, {})


def reads(path):
    with open(path) as file:  # noqa: PTH123 - as the code under test might
        file.read()


EXECUTES = {
    "os.system": lambda: os.system("true"),  # noqa: S605 - must be seen
    "subprocess.Popen": lambda: subprocess.run(["true"], check=True),
    "compile": lambda: eval("1 + 1"),  # noqa: S307 - as above
    "os.fork": os.fork,
    "os.remove": lambda: os.remove("nothing"),  # noqa: PTH107 - as above
    "socket.": socket.socket,
    "open for writing": lambda: open("mark", "w"),  # noqa: PTH123, SIM115 - as above
    "open outside the folder": lambda: reads("/etc/passwd"),
    "pickle.find_class": lambda: __import__("pickle").loads(b"cos\nsystem\n."),
}


@pytest.mark.parametrize("event", EXECUTES)
def test_what_is_executed_or_written_is_stopped_and_a_finding(sources, monkeypatch, event):
    reasons = findings(sources, EXECUTES[event], monkeypatch)
    assert len(reasons) == 1
    assert f"StoppedError: {event}" in reasons[0]


def test_what_is_stopped_cannot_be_hidden_by_the_code_under_test(sources, monkeypatch):
    def hides():
        try:
            os.system("true")  # noqa: S605 - must be seen
        except BaseException:  # noqa: BLE001 - as above
            return "accepted"
        return "accepted"

    assert ["os.system"] == [r[:9] for r in findings(sources, hides, monkeypatch)]


def test_too_much_memory_is_a_finding(sources, monkeypatch):
    monkeypatch.setattr(fuzz_watch, "MOST_MEMORY", 2**24)
    peak = fuzz_watch._peak()
    reasons = findings(sources, lambda: str(len(bytearray(peak))), monkeypatch)
    assert "MiB of memory" in reasons[0]


def test_too_much_time_is_stopped_and_a_finding(sources, monkeypatch):
    monkeypatch.setattr(fuzz_watch, "MOST_SECONDS", -1.8)

    def loops():
        while True:
            pass

    reasons = findings(sources, loops, monkeypatch)
    assert "StoppedError: took more than" in reasons[0]


def test_a_reader_that_would_execute_is_seen(sources, monkeypatch):
    """A reader that imports what a pickle names is found within the cases of an ordinary run."""
    monkeypatch.setattr(pickles._Unpickler, "find_class", pickles._InPython.find_class)
    monkeypatch.setitem(fuzz_surfaces.SURFACES, "state", (fuzz_surfaces.archives, 1000))
    outcomes = fuzz.run(SEED, range(60), sources)
    assert any(
        outcome.finding and "pickle.find_class" in outcome.finding.reason for outcome in outcomes
    )


def test_a_bug_of_the_library_is_found_with_its_number_and_files(tmp_path, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(finding, "_states", broken)
    said = []
    status = fuzz.main(["--count", "60", "--findings", str(tmp_path / "found")], said.append)
    assert 1 == status
    assert "findings" in said[-1]
    numbers = [line.split()[1] for line in said if line.startswith("case ")]
    assert {f"1-{number}" for number in numbers} == {p.name for p in (tmp_path / "found").iterdir()}
    kept = tmp_path / "found" / f"1-{numbers[0]}"
    assert "ZeroDivisionError" in (kept / "finding.txt").read_text()
    assert 2 <= len(list(kept.iterdir()))


def test_a_run_without_findings_ends_with_a_table_and_status_0():
    said = []
    assert 0 == fuzz.main(["--case", "5"], said.append)
    assert "state" in said[0]
    assert said[1].startswith("1 cases in ")


def test_mutations_leave_what_they_mutate_as_it_was(sources):
    before = repr(sources.states), repr(fuzz_surfaces.CONFIGS)
    for number in range(200):
        fuzz_surfaces.states(random.Random(number), sources)
        fuzz_surfaces.configs(random.Random(number), sources)
    assert before == (repr(sources.states), repr(fuzz_surfaces.CONFIGS))
