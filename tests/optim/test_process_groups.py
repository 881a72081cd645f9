"""One rank among others: what it verifies, and what it adopts from another."""

from __future__ import annotations

import logging
import pickle
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from dist_sched import ConfigError, RankMismatchError, ReconcileError, StateError
from dist_sched._optim import process_groups
from dist_sched._optim.base import _LIVE
from dist_sched._optim.process_groups import Sent, Vote
from dist_sched._optim.stages import Stage
from helpers import (
    FLOAT_AND_TENSOR_LR,
    HILL,
    OTHER_HILL,
    UP,
    adamw,
    held,
    new_group,
    opt_param_scheduler,
    param_scheduler,
    sgd,
    state_at,
)

GROUPS = [{}, {"lr": 3.0, "weight_decay": 0.0}]


class RewordedError(Exception):
    """Has another message after it was pickled."""

    def __reduce__(self):
        return RewordedError, ("another message",)


def fresh(build=adamw, **changes):
    optimizer = build(*GROUPS)
    return optimizer, opt_param_scheduler(optimizer, **changes)


def test_without_a_process_group_synchronize_changes_nothing():
    optimizer, scheduler = fresh()
    scheduler.seek(60)
    before = scheduler.state_dict(), held(optimizer)
    scheduler.synchronize()
    assert before == (scheduler.state_dict(), held(optimizer))


@FLOAT_AND_TENSOR_LR
def test_verify_reads_every_group_back(build):
    optimizer, scheduler = fresh(build)
    scheduler.seek(60)
    scheduler.verify()
    optimizer.param_groups[1]["lr"] = 0.75
    with pytest.raises(RankMismatchError, match=r"rank 0: group 1: lr is 0.75 and should be 1.65"):
        scheduler.verify()
    scheduler.step(0)
    scheduler.verify()


def test_verify_finds_a_value_that_is_off_by_a_billionth():
    optimizer, scheduler = fresh()
    scheduler.seek(60)
    optimizer.param_groups[0]["lr"] *= 1 + 1e-9
    with pytest.raises(RankMismatchError, match="group 0: lr is"):
        scheduler.verify()


def test_verify_names_a_group_whose_bound_is_illegal():
    optimizer, scheduler = fresh()
    optimizer.param_groups[1]["max_lr"] = "high"
    with pytest.raises(RankMismatchError, match=r"rank 0: group 1: max_lr='high'"):
        scheduler.verify()


def adopt(scheduler, first):
    """Make a scheduler adopt what the first rank's has, which is not of this process then."""
    theirs = first._current()
    _LIVE.discard(first)
    prepared, stage = scheduler._prepare(theirs, is_own=False)
    scheduler._apply(prepared, [stage])


def test_terms_that_cannot_be_written_are_not_adopted_in_part():
    optimizer, scheduler = fresh()
    scheduler.seek(10)
    before = scheduler.state_dict(), held(optimizer), repr(scheduler._writer.references)
    optimizer.param_groups[1]["end_wd"] = -1.0
    other = opt_param_scheduler(adamw({"lr": 0.5}), max_lr=0.5)
    other.seek(60)
    with pytest.raises(ConfigError, match=r"group 1: end_wd=-1\.0"):
        adopt(scheduler, other)
    assert before == (
        scheduler.state_dict(),
        held(optimizer),
        repr(scheduler._writer.references),
    )


def test_references_that_another_rank_lacks_are_kept():
    optimizer, scheduler = fresh()
    other = opt_param_scheduler(adamw({"lr": 0.5, "weight_decay": 0.0}))
    other.seek(50)
    adopt(scheduler, other)
    assert [pytest.approx(1.28), pytest.approx(3.84)] == held(optimizer)
    assert [0.05, 0.0] == held(optimizer, "weight_decay")


def test_a_field_that_another_rank_does_not_schedule_is_as_it_was_before():
    mine = param_scheduler(sgd(momentum=0.5), {"lr": HILL, "momentum": UP})
    mine.seek(8)
    assert [0.75] == held(mine, "momentum")
    adopt(mine, param_scheduler(sgd()))
    assert [0.5] == held(mine, "momentum")


def test_another_ranks_specification_is_adopted_whole(caplog):
    mine, theirs = (
        param_scheduler(sgd({"name": "body"})),
        param_scheduler(
            sgd({"name": "body"}), {"lr": OTHER_HILL}, groups={"body": {"lr": 0.5}}, unit="tokens"
        ),
    )
    theirs.seek(4)
    adopt(mine, theirs)
    assert (theirs.state_dict(), [1.0]) == (mine.state_dict(), held(mine.optimizer))
    assert "lr.phases[0].end 2.0 instead of 1.0" in caplog.text


def test_adopted_terms_are_all_taken_up(caplog):
    optimizer, scheduler = fresh()
    theirs = {"policy": "config", "unit": "tokens", "keep_group_ratios": False, "max_lr": 0.5}
    other = fresh(**theirs)[1]
    other.seek(10)
    adopt(scheduler, other)
    assert ("tokens", False, True) == (
        scheduler.unit,
        scheduler.keep_group_ratios,
        scheduler.override_opt_param_scheduler,
    )
    assert [0.5, 0.5] == held(optimizer)
    for name in ("max_lr 0.5 instead of 1.0", "unit 'tokens'", "policy", "keep_group_ratios"):
        assert name in caplog.text
    scheduler.load_state_dict(fresh(**theirs)[1].state_dict())
    assert () == scheduler.last_reconciliation.changed


def test_verify_reads_the_groups_of_an_inner_optimizer_that_was_exchanged():
    wrapper = SimpleNamespace(optimizer=adamw(), param_groups=[])
    scheduler = opt_param_scheduler(wrapper)
    scheduler.seek(60)
    wrapper.optimizer = torch.optim.SGD(wrapper.optimizer.param_groups[0]["params"], lr=0.125)
    with pytest.raises(RankMismatchError, match=r"lr is 0\.125 and should be 0\.55"):
        scheduler.verify()


@pytest.mark.usefixtures("_alone")
def test_an_error_whose_message_pickling_changes_reaches_every_rank_with_its_own():
    def decision():
        raise RewordedError("its own message")

    with pytest.raises(RuntimeError, match="RewordedError: its own message"):
        process_groups.agree(decision, lambda outcome: (outcome, None), about="a test")


@pytest.mark.usefixtures("_alone")
def test_a_local_load_does_not_communicate(monkeypatch):
    monkeypatch.delattr(dist, "broadcast_object_list")
    scheduler = opt_param_scheduler()
    scheduler.load_state_dict(state_at(60), local=True)
    assert 60 == scheduler.num_steps


@pytest.mark.usefixtures("_alone")
def test_what_a_rank_could_not_prepare_is_named_with_its_class():
    def prepare(_outcome):
        raise KeyError("lr")

    with pytest.raises(RankMismatchError, match="rank 0: KeyError: 'lr'"):
        process_groups.agree(lambda: None, prepare, about="a test")


# One of two ranks, without what is collective


@pytest.fixture
def _one_of_two(monkeypatch):
    monkeypatch.setattr(process_groups, "size", lambda _group=None: 2)


HALVES = {"head": {"lr": 0.5}}


@pytest.mark.usefixtures("_one_of_two")
def test_a_local_load_passes_over_names_that_other_ranks_may_have():
    scheduler = param_scheduler(sgd({"name": "body"}), groups=HALVES)
    saved = scheduler.state_dict()
    scheduler.load_state_dict(saved, local=True)
    with pytest.raises(ConfigError, match=r"groups\[head\]\.lr: no group's name matches 'head'"):
        scheduler.step()


@pytest.mark.usefixtures("_one_of_two")
def test_a_group_that_comes_before_the_first_step_has_the_name():
    optimizer = sgd({"name": "body"})
    scheduler = param_scheduler(optimizer, groups=HALVES)
    optimizer.add_param_group(new_group(name="head"))
    optimizer.step()
    scheduler.step(8)
    assert [1.0, 0.5] == held(optimizer)


@pytest.mark.usefixtures("_one_of_two")
def test_an_optimizer_that_is_assigned_before_the_first_step_has_the_name():
    scheduler = param_scheduler(sgd({"name": "body"}), groups=HALVES)
    scheduler.optimizer = sgd({"name": "body"}, {"name": "head"})
    scheduler.step(8)
    assert [1.0, 0.5] == held(scheduler)


@pytest.mark.usefixtures("_one_of_two")
def test_a_name_that_was_found_once_is_not_looked_for_again():
    scheduler = param_scheduler(sgd({"name": "body"}, {"name": "head"}), groups=HALVES)
    scheduler.optimizer = sgd({"name": "body"})
    scheduler.load_state_dict(scheduler.state_dict())
    scheduler.synchronize()
    assert 0 == scheduler.num_steps


@pytest.mark.usefixtures("_one_of_two")
def test_a_name_of_a_reference_that_no_rank_has_is_refused_at_the_first_step():
    scheduler = param_scheduler(sgd({"name": "body"}), reference="head")
    rule = "reference='head': no group has this name; the groups are named 'body'"
    with pytest.raises(ConfigError, match=rule):
        scheduler.step()


def test_a_part_of_a_tuple_that_was_removed_is_refused_before_the_ranks_agree():
    optimizer = adamw({}, {})
    scheduler = param_scheduler(optimizer, {"betas[1]": UP})
    optimizer.param_groups[1]["betas"] = (0.5,)
    with pytest.raises(ConfigError, match=r"group 1: betas\[1\] was removed from the group"):
        scheduler._prepare(scheduler._current(), is_own=True)


@pytest.mark.usefixtures("_one_of_two")
def test_dcp_may_step_an_optimizer_to_make_its_state_before_a_name_is_found():
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.AdamW([{"params": model.parameters(), "name": "body"}], lr=1.0)
    scheduler = param_scheduler(optimizer, {"lr": 1.0}, groups=HALVES)
    saved = get_optimizer_state_dict(model, optimizer)
    assert [1.0] == held(scheduler)
    set_optimizer_state_dict(model, optimizer, saved)
    assert [1.0] == held(scheduler)


def test_a_reference_that_is_adopted_from_another_rank_is_named(caplog):
    groups = {"name": "a"}, {"name": "b", "lr": 0.5}
    scheduler = param_scheduler(sgd(*groups), reference="b")
    adopt(scheduler, param_scheduler(sgd(*groups), reference="a"))
    assert "reference 'a' instead of 'b'" in caplog.text


# An agreement of a group of one rank


class OurError(StateError):
    """Belongs to one of our classes."""


def raising(error):
    """Return a function that raises an error, whatever it is given."""

    def function(*_, **__):
        raise error

    return function


@pytest.fixture(params=["default", "its own"])
def group(request, _alone):
    """Return a group of one rank: the default one, or another one."""
    return None if request.param == "default" else dist.new_group([0])


@pytest.fixture(params=[True, False])
def _with_or_without_group(request):
    if request.param:
        request.getfixturevalue("_alone")


def test_a_rank_alone_is_the_first_of_one(group):
    process_groups.check(group)
    assert (0, 1) == (process_groups.rank(group), process_groups.size(group))


def test_without_a_process_group_this_process_is_the_first_of_one():
    process_groups.check(None)
    assert (0, 1) == (process_groups.rank(), process_groups.size())


def test_without_torchs_package_of_process_groups_this_process_is_the_first_of_one(monkeypatch):
    monkeypatch.setattr(dist, "is_available", lambda: False)
    monkeypatch.setattr(dist, "is_initialized", raising(AttributeError("no package")))
    monkeypatch.delattr(dist.GroupMember, "NON_GROUP_MEMBER")
    process_groups.check(None)
    assert (0, 1) == (process_groups.rank(), process_groups.size())


@pytest.mark.parametrize(
    "group, text",
    [
        (dist.GroupMember.NON_GROUP_MEMBER, "^process_group: this rank is not in it; build the"),
        ("mesh", r"^process_group='mesh': must be a ProcessGroup; .* mesh\.get_group\(dimension\)"),
    ],
)
def test_what_is_no_group_of_this_rank_is_refused(group, text):
    with pytest.raises(ConfigError, match=text):
        process_groups.check(group)


@pytest.mark.parametrize("local", [True, False])
def test_what_is_agreed_on_is_returned_with_what_was_prepared(group, local):
    outcome, prepared, reports = process_groups.agree(
        lambda: 7, lambda found: (found + 1, found + 2), group, about="a test", local=local
    )
    assert (7, 8, [9]) == (outcome, prepared, reports)


@pytest.mark.usefixtures("_with_or_without_group")
@pytest.mark.parametrize("error", [OurError("wrong"), KeyError("lr"), KeyboardInterrupt()])
def test_an_error_of_the_decision_is_raised_as_it_is(error):
    with pytest.raises(type(error)) as caught:
        process_groups.agree(raising(error), lambda found: (found, None), about="a test")
    assert str(error) == str(caught.value)


@pytest.mark.usefixtures("_alone")
def test_an_error_of_the_decision_has_the_first_ranks_own_as_its_cause():
    error = KeyError("lr")
    with pytest.raises(KeyError) as caught:
        process_groups.agree(raising(error), lambda found: (found, None), about="a test")
    assert error is caught.value.__cause__


@pytest.mark.usefixtures("_alone")
def test_what_cannot_be_sent_is_an_error_of_the_decision():
    with pytest.raises((AttributeError, pickle.PicklingError), match="pickle"):
        process_groups.agree(lambda: lambda: 7, lambda found: (found, None), about="a test")


@pytest.mark.usefixtures("_alone")
def test_what_cannot_be_received_is_an_error_of_the_decision():
    with pytest.raises(RuntimeError, match=r"^cannot be received$"):
        process_groups.agree(Unreadable, lambda found: (found, None), about="a test")


class Unreadable:
    """Can be pickled, and not be unpickled."""

    def __reduce__(self):
        return raise_unreadable, ()


def raise_unreadable():
    raise RuntimeError("cannot be received")


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("kind", [ConfigError, StateError, ReconcileError, RankMismatchError])
def test_what_a_rank_cannot_prepare_is_raised_in_its_class(kind):
    prepare = raising(kind("it does not fit"))
    text = "^rank 0: it does not fit\nnothing has changed on any rank$"
    with pytest.raises(kind, match=text):
        process_groups.agree(lambda: 7, prepare, about="a test")
    with pytest.raises(kind, match=text):
        process_groups.prepared(prepare, about="a test")
    with pytest.raises(kind, match=text):
        process_groups.gather(prepare, about="a test")


def test_without_a_process_group_what_cannot_be_prepared_is_raised_as_it_is():
    error = KeyError("lr")
    for call in (
        lambda: process_groups.agree(lambda: 7, raising(error), about="a test"),
        lambda: process_groups.prepared(raising(error), about="a test"),
    ):
        with pytest.raises(KeyError) as caught:
            call()
        assert error is caught.value
    [sent] = process_groups.gather(raising(error), about="a test")
    with pytest.raises(KeyError, match="lr"):
        sent.value()


def test_what_every_rank_decides_alike_is_returned_with_the_reports(group):
    assert (7, [8]) == process_groups.prepared(lambda: (7, 8), group, about="a test")


def test_what_every_rank_has_is_gathered(group):
    assert [7] == [one.value() for one in process_groups.gather(lambda: 7, group, about="a test")]


def test_without_a_process_group_what_this_process_has_is_gathered():
    assert [7] == [one.value() for one in process_groups.gather(lambda: 7, about="a test")]
    assert (7, [8]) == process_groups.prepared(lambda: (7, 8), about="a test")


CALLS = {
    "broadcast_object_list": [
        lambda group: process_groups.agree(lambda: 7, lambda f: (f, f), group, about="a test")
    ],
    "all_gather_object": [
        lambda group: process_groups.agree(lambda: 7, lambda f: (f, f), group, about="a test"),
        lambda group: process_groups.prepared(lambda: (7, 8), group, about="a test"),
        lambda group: process_groups.gather(lambda: 7, group, about="a test"),
    ],
}


@pytest.mark.parametrize("name, call", [(name, call) for name in CALLS for call in CALLS[name]])
def test_an_error_of_a_backend_names_the_subject_and_the_group(monkeypatch, group, name, call):
    monkeypatch.setattr(dist, name, raising(ValueError("connection closed")))
    over = "the default process group" if group is None else "its process_group"
    text = rf"^dist_sched: a test: its collective over {over} failed \(connection closed\); check"
    with pytest.raises(RuntimeError, match=text):
        call(group)


# What several ranks say


def votes(*problems):
    return [Vote(problem, kind, None) for problem, kind in problems]


def test_ranks_without_a_problem_are_not_refused():
    process_groups._refuse(votes((None, ""), (None, "")))


FITS, OTHER = (None, ""), ("too high", "ConfigError")


@pytest.mark.parametrize(
    "answers, kind, lines, ranks",
    [
        ([FITS, OTHER], ConfigError, ["rank 1: too high"], None),
        ([OTHER, FITS, OTHER], ConfigError, ["ranks 0, 2: too high"], None),
        (
            [OTHER, ("no group", "StateError")],
            RankMismatchError,
            ["rank 0: too high", "rank 1: no group"],
            {0: "too high", 1: "no group"},
        ),
        (
            [FITS, ("KeyError: 'a'", "KeyError")],
            RankMismatchError,
            ["rank 1: KeyError: 'a'"],
            {1: "KeyError: 'a'"},
        ),
        (
            [FITS, ("another", "RankMismatchError")],
            RankMismatchError,
            ["rank 1: another"],
            {1: "another"},
        ),
        (
            [(f"reason {i}", "ConfigError") for i in range(9)],
            ConfigError,
            [f"rank {i}: reason {i}" for i in range(8)],
            None,
        ),
    ],
)
def test_ranks_with_a_problem_are_named_with_their_reasons(answers, kind, lines, ranks):
    with pytest.raises(kind) as caught:
        process_groups._refuse(votes(*answers))
    expected = "\n".join([*lines, "nothing has changed on any rank"])
    assert (kind, expected) == (caught.type, str(caught.value))
    assert ranks == getattr(caught.value, "ranks", None)


@pytest.mark.parametrize(
    "ranks, expected",
    [
        ([3], "rank 3"),
        ([1, 2], "ranks 1, 2"),
        ([*range(8)], "ranks 0, 1, 2, 3, 4, 5, 6, 7"),
        ([*range(10)], "ranks 0, 1, 2, 3, 4, 5, 6, 7 and 2 more"),
    ],
)
def test_ranks_are_written_up_to_eight(ranks, expected):
    assert expected == process_groups._ranks(ranks)


@pytest.mark.parametrize(
    "error, others, kind, text",
    [
        (OurError("wrong"), ("wrong", "StateError"), OurError, "wrong"),
        (OurError("wrong"), ("no class", "AttributeError"), RuntimeError, "StateError: wrong"),
        (OSError("gone"), ("OSError: gone", "OSError"), OSError, "gone"),
        (OSError("gone"), ("OSError: other", "OSError"), RuntimeError, "OSError: gone"),
    ],
)
def test_the_error_of_a_decision_is_the_same_on_ranks_that_cannot_read_it(
    error, others, kind, text
):
    sent = Sent.of(raising(error))
    found = process_groups._common_error(sent, [sent.vote(), Vote(*others, None)])
    assert (kind, text) == (type(found), str(found))


def test_an_error_of_a_class_that_a_rank_lacks_has_the_message():
    sent = Sent(b"not a pickle", "StateError", "wrong")
    found = process_groups._common_error(sent, [sent.vote()])
    assert (RuntimeError, "StateError: wrong") == (type(found), str(found))


class Unspeakable(Exception):  # noqa: N818 - of a user
    """Has no message."""

    def __str__(self):
        raise ValueError("nothing to say")


class UnpicklableError(Exception):
    """Cannot be pickled."""

    def __reduce__(self):
        raise TypeError("cannot be pickled")


@pytest.mark.parametrize(
    "error, kind, text",
    [
        (KeyError("lr"), KeyError, "'lr'"),
        (OurError("wrong"), OurError, "wrong"),
        (RewordedError("own"), RuntimeError, "RewordedError: own"),
        (UnpicklableError("own"), RuntimeError, "UnpicklableError: own"),
        (Unspeakable(), RuntimeError, "Unspeakable: (its message cannot be read)"),
    ],
)
def test_an_error_is_sent_as_it_is_or_with_its_class_and_message(error, kind, text):
    found = process_groups._sendable(error)
    assert (kind, text) == (type(found), str(found))


def test_an_error_that_cannot_be_sent_is_named_in_the_log(caplog):
    caplog.set_level(logging.DEBUG, "dist_sched")
    process_groups._sendable(UnpicklableError("own"))
    assert ["an error of type UnpicklableError cannot be sent"] == caplog.messages


@pytest.mark.parametrize(
    "error, kind, text",
    [
        (OurError("wrong"), "StateError", "wrong"),
        (RankMismatchError("wrong"), "RankMismatchError", "wrong"),
        (KeyError("lr"), "KeyError", "KeyError: 'lr'"),
    ],
)
def test_an_error_is_a_vote_with_the_class_of_ours_that_it_is_of(error, kind, text):
    failed = []
    sent = Sent.of(raising(error), failed)
    assert Vote(text, kind, None) == sent.vote()
    assert [error] == failed
    with pytest.raises(type(error)):
        sent.value()


def test_a_value_is_a_vote_without_a_problem():
    failed = []
    sent = Sent.of(lambda: 7, failed)
    assert (Vote(None, "", None), 7, []) == (sent.vote(), sent.value(), failed)


# One of two ranks that synchronize

KINDS = "rank {} has .*, but rank 0 has .*; build the same scheduler on every rank"


@pytest.fixture
def second(monkeypatch):
    """Return what makes this process the second of two ranks, whose first has a scheduler."""

    def become(make_first, rank=1):
        first = make_first()
        theirs = Sent.of(lambda: (first._current(), first._writer.inventory()))
        report = Sent.of(first._own_report)
        stage = Stage.of(first._writer, first._agreed.reference, None)
        _LIVE.discard(first)

        def gather(make, _group, *, about):
            subjects.append(about)
            other = report if "verification" in about else theirs
            return [other, Sent.of(make)] if rank else [Sent.of(make), other]

        def prepared(prepare, _group, *, about):
            subjects.append(about)
            mine, own = prepare()
            return mine, [stage, own]

        def agree(decision, prepare, _group, *, about, local):
            assert not local
            subjects.append(about)
            outcome = decision() if rank == 0 else (first._reconcile(first.state_dict(), None), "a")
            mine, own = prepare(outcome)
            return outcome, mine, [own, stage] if rank == 0 else [stage, own]

        subjects = []
        monkeypatch.setattr(process_groups, "agree", agree)
        monkeypatch.setattr(process_groups, "rank", lambda _group=None: rank)
        monkeypatch.setattr(process_groups, "size", lambda _group=None: 2)
        monkeypatch.setattr(process_groups, "gather", gather)
        monkeypatch.setattr(process_groups, "prepared", prepared)
        return subjects

    return become


def at(position, scheduler):
    scheduler.seek(position)
    return scheduler


def test_a_rank_that_synchronizes_adopts_the_firsts_config_and_position(second, caplog):
    mine = param_scheduler(sgd(), name="a")
    subjects = second(lambda: at(4, param_scheduler(sgd(lr=2.0), {"lr": OTHER_HILL}, name="a")))
    mine.synchronize()
    assert (4, [1.0]) == (mine.num_steps, held(mine))
    assert ["the synchronization of ParamScheduler 'a'"] * 2 == subjects
    [record] = caplog.records
    assert "WARNING" == record.levelname
    assert record.message.startswith("rank 1 adopts rank 0's config: lr.phases[0].steps 4 instead")
    assert "position 4 instead of 0" in record.message


def test_a_first_rank_that_has_all_adopts_nothing(second, caplog):
    mine = param_scheduler(sgd())
    second(lambda: at(4, param_scheduler(sgd())), rank=0)
    mine.synchronize()
    assert (0, [0.0], "") == (mine.num_steps, held(mine), caplog.text)


@pytest.mark.usefixtures("_one_of_two")
def test_a_first_rank_adopts_what_only_others_have(second, caplog):
    mine = param_scheduler(adamw({"name": "a"}))
    fields = {"lr": HILL, "momentum": UP}
    second(lambda: param_scheduler(sgd({"name": "b"}), fields), rank=0)
    mine.synchronize()
    text = "rank 0 adopts config that only other ranks have: "
    assert [text] == [message[: len(text)] for message in caplog.messages]
    assert "momentum" in mine.to_config()["fields"]


@pytest.mark.usefixtures("_one_of_two")
def test_a_name_that_another_rank_has_is_no_problem_after_synchronizing(second):
    mine = param_scheduler(sgd({"name": "body"}), groups=HALVES)
    second(lambda: param_scheduler(sgd({"name": "head"}), groups=HALVES))
    mine.synchronize()
    mine.step(8)
    assert [1.0] == held(mine)


@pytest.mark.usefixtures("_one_of_two")
@pytest.mark.parametrize("call", ["synchronize", "load_state_dict"])
def test_a_name_that_no_rank_has_is_refused_and_nothing_changes(second, call):
    mine = param_scheduler(sgd({"name": "body"}), groups=HALVES)
    second(lambda: at(8, param_scheduler(sgd({"name": "tail"}), groups=HALVES)))
    with pytest.raises(
        ConfigError, match=r"groups\[head\]\.lr: no group of any rank has this name"
    ):
        mine.load_state_dict({}) if call == "load_state_dict" else mine.synchronize()
    assert (0, [0.0]) == (mine.num_steps, held(mine))
    with pytest.raises(ConfigError, match="no group's name matches 'head'"):
        mine.step()


def test_a_rank_that_loads_adopts_what_the_first_decides(second, caplog):
    caplog.set_level(logging.INFO, "dist_sched")
    mine = param_scheduler(sgd(), name="a")
    subjects = second(lambda: at(4, param_scheduler(sgd(lr=2.0), {"lr": HILL}, name="a")))
    caplog.clear()
    mine.load_state_dict({})
    assert (4, [0.25], 4) == (mine.num_steps, held(mine), mine.last_reconciliation.position)
    assert (["the load of ParamScheduler 'a'"], []) == (subjects, caplog.messages)


def test_a_rank_that_loads_names_what_it_has_otherwise(second, caplog):
    mine = param_scheduler(sgd(), policy="config")
    second(lambda: at(4, param_scheduler(sgd())))
    mine.load_state_dict({})
    text = "rank 1 adopts rank 0's config: policy "
    assert [True, True] == [text in caplog.messages[0], "position" not in caplog.messages[0]]


def test_a_first_rank_that_loads_takes_references_that_only_others_have(second, caplog):
    caplog.set_level(logging.INFO, "dist_sched")
    mine = opt_param_scheduler(adamw({"weight_decay": 0.0}))
    second(lambda: opt_param_scheduler(adamw()), rank=0)
    mine.load_state_dict(state_at(50))
    assert "loaded the scheduler at position 50" in caplog.text
    mine.optimizer.add_param_group(new_group(weight_decay=0.2))
    mine.seek(50)
    assert [0.0, pytest.approx(0.1)] == held(mine, "weight_decay")


@pytest.mark.usefixtures("_one_of_two")
def test_an_update_is_refused_while_a_name_is_looked_for_unless_every_lr_is_zero():
    optimizer = sgd({"name": "body"}, {"name": "tail"})
    scheduler = param_scheduler(optimizer, groups=HALVES)
    optimizer.step()
    optimizer.param_groups[1]["lr"] = 1.0
    with pytest.raises(ConfigError, match="no group's name matches 'head'"):
        optimizer.step()
    assert 0 == scheduler.num_steps


@pytest.mark.usefixtures("_one_of_two")
def test_the_name_of_a_reference_that_this_rank_lacks_is_looked_for_on_others():
    scheduler = param_scheduler(sgd({"name": "body"}), reference="head")
    with pytest.raises(ConfigError, match="reference='head': no group has this name"):
        scheduler.step()
    assert 0 == scheduler.num_steps


def test_a_rank_that_synchronizes_another_scheduler_is_refused(second):
    mine = param_scheduler(sgd(), name="a")
    second(lambda: param_scheduler(sgd(), name="b"))
    with pytest.raises(RankMismatchError, match="name is 'a', but rank 0's is 'b'; pass the same"):
        mine.synchronize()


@pytest.mark.parametrize("rank", [0, 1])
def test_ranks_with_schedulers_of_two_kinds_are_refused(second, rank):
    kinds = [param_scheduler, opt_param_scheduler]
    mine = kinds[rank](adamw())
    second(lambda: kinds[1 - rank](adamw()), rank=rank)
    with pytest.raises(RankMismatchError, match=KINDS.format(1)):
        mine.synchronize()


def test_ranks_that_disagree_are_named_with_both_values(second):
    mine = at(8, param_scheduler(sgd(), name="a"))
    subjects = second(lambda: at(4, param_scheduler(sgd(lr=2.0), name="a")))
    with pytest.raises(RankMismatchError) as caught:
        mine.verify()
    lines = ["rank 1: position is 8, rank 0 has 4", "rank 1: reference lr is 1.0, rank 0 has 2.0"]
    assert "\n".join(["ranks disagree:", *lines]) == str(caught.value)
    assert {0: 4, 1: 8} == {rank: report["position"] for rank, report in caught.value.ranks.items()}
    assert ["the verification of ParamScheduler 'a'"] == subjects


def test_ranks_that_agree_are_not_refused(second):
    mine = at(4, param_scheduler(sgd()))
    second(lambda: at(4, param_scheduler(sgd())))
    mine.verify()


# Which scheduler a load or a synchronization is of


def test_a_scheduler_that_another_rank_calls_in_another_order_is_named():
    mine, other = param_scheduler(sgd(), name="a"), param_scheduler(sgd(), name="b")
    text = "this rank loads or synchronizes ParamScheduler 'a', but rank 0 ParamScheduler 'b'; call"
    with pytest.raises(RankMismatchError, match=text):
        mine._check_identity(other._current())


def test_a_scheduler_of_another_process_group_is_not_meant():
    mine, other = param_scheduler(sgd(), name="a"), param_scheduler(sgd(), name="b")
    theirs = other._current()
    other.process_group = object()
    with pytest.raises(RankMismatchError, match="name is 'a', but rank 0's is 'b'"):
        mine._check_identity(theirs)


def test_a_scheduler_that_was_replaced_is_not_meant():
    mine, other = param_scheduler(sgd(), name="a"), param_scheduler(sgd(), name="b")
    newer = param_scheduler(other.optimizer, name="c")
    with pytest.raises(RankMismatchError, match="name is 'a', but rank 0's is 'b'"):
        mine._check_identity(other._current())
    with pytest.raises(RankMismatchError, match="but rank 0 ParamScheduler 'c'"):
        mine._check_identity(newer._current())


def test_a_scheduler_that_was_deleted_is_not_meant():
    mine, other = param_scheduler(sgd(), name="a"), param_scheduler(sgd(), name="b")
    theirs, other.itself = other._current(), other
    del other
    with pytest.raises(RankMismatchError, match="name is 'a', but rank 0's is 'b'"):
        mine._check_identity(theirs)


def test_an_equal_scheduler_is_the_same_one_wherever_it_is():
    mine, other = param_scheduler(sgd(), name="a"), param_scheduler(sgd(), name="a")
    mine._check_identity(other._current())


def test_another_config_of_the_same_kind_and_name_may_be_adopted():
    mine, other = param_scheduler(sgd()), param_scheduler(sgd(), {"lr": OTHER_HILL})
    theirs = other._current()
    _LIVE.discard(other)
    mine._check_identity(theirs)


def test_a_scheduler_of_another_kind_is_refused():
    mine, other = param_scheduler(adamw()), opt_param_scheduler()
    theirs = other._current()
    _LIVE.discard(other)
    with pytest.raises(RankMismatchError, match=KINDS.format(0)):
        mine._check_identity(theirs)
