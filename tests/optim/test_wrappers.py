"""Wrappers and containers of optimizers: what is written, and what their loads lead to."""

from __future__ import annotations

import copy
import gc
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch.distributed.algorithms.model_averaging.averagers import PeriodicModelAverager
from torch.distributed.optim import PostLocalSGDOptimizer, ZeroRedundancyOptimizer
from torch.distributed.optim.named_optimizer import _NamedOptimizer

from dist_sched import ConfigError
from helpers import FLOAT_AND_TENSOR_LR, adamw, held, new_group, opt_param_scheduler, sgd


class Delegating(torch.optim.Optimizer):
    """A subclass that skips `Optimizer.__init__`, as torchft's `OptimizerWrapper` does."""

    def __init__(self, optim):
        self.optim = optim

    @property
    def param_groups(self):
        return self.optim.param_groups

    @property
    def state(self):
        return self.optim.state

    def load_state_dict(self, state):
        self.optim.load_state_dict(state)

    def state_dict(self):
        return self.optim.state_dict()


class Hiding:
    """A facade whose optimizers cannot be found."""

    def __init__(self, *optimizers):
        self._hidden = optimizers

    @property
    def param_groups(self):
        return [group for one in self._hidden for group in one.param_groups]

    def state_dict(self):
        return copy.deepcopy([one.state_dict() for one in self._hidden])

    def load_state_dict(self, states):
        for one, state in zip(self._hidden, states, strict=True):
            one.load_state_dict(state)


class InPlace(Hiding):
    """A facade whose load updates the dicts that it has."""

    def load_state_dict(self, states):
        saved = [group for state in states for group in state["param_groups"]]
        for group, loaded in zip(self.param_groups, saved, strict=True):
            group.update({**loaded, "params": group["params"]})


class OwnLoad(torch.optim.SGD):
    """An optimizer whose own `load_state_dict` runs no hooks, as that of bitsandbytes."""

    def load_state_dict(self, state):
        saved = copy.deepcopy(state["param_groups"])
        pairs = zip(self.param_groups, saved, strict=True)
        groups = [{**loaded, "params": group["params"]} for group, loaded in pairs]
        self.__setstate__({"state": {}, "param_groups": groups})


class Container(torch.optim.Optimizer):
    """A container with one dead group over all parameters, as torchtitan's."""

    def __init__(self, *optimizers):
        self.optimizers = list(optimizers)
        params = [p for one in optimizers for group in one.param_groups for p in group["params"]]
        super().__init__(params, {"lr": 0.25})


def own_load(*groups):
    return OwnLoad([new_group(**group) for group in groups], lr=1.0, weight_decay=0.1)


def in_place(*groups):
    return InPlace(adamw(*groups))


def hiding(*groups):
    return Hiding(adamw(*groups))


def zero(*groups, lr=1.0):
    return ZeroRedundancyOptimizer(
        [new_group(**group) for group in groups or ({},)],
        optimizer_class=torch.optim.AdamW,
        lr=lr,
        weight_decay=0.1,
    )


def chained(*optimizers):
    """Return Megatron's real chain; its members need no GPU to be built."""
    from megatron.core.optimizer.optimizer import ChainedOptimizer, FP32Optimizer, MegatronOptimizer

    class Member(FP32Optimizer):
        def __init__(self, optimizer):
            MegatronOptimizer.__init__(self, optimizer, config=None)
            self.is_stub_optimizer = optimizer is None

    return ChainedOptimizer([Member(one) for one in optimizers])


@pytest.mark.parametrize("count", [1, 2])
def test_each_optimizer_of_megatrons_chain_is_written(count):
    optimizers = [adamw({"lr": 2.0}), adamw({"lr": 4.0})][:count]
    scheduler = opt_param_scheduler(chained(*optimizers))
    scheduler.seek(10)
    assert [[1.0], [2.0]][:count] == [held(one) for one in optimizers]
    assert optimizers == scheduler._writer.tracker.optimizers()


@pytest.mark.filterwarnings("ignore:WARNING. there is no optimizer on RANK")
@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("members", [[], [None]])
def test_a_chain_of_megatrons_without_parameters_has_nothing_to_write(members):
    scheduler = opt_param_scheduler(chained(*members))
    scheduler.step()
    assert [] == scheduler.get_last_lr()


def test_a_load_of_megatrons_chain_leaves_the_schedulers_values():
    chain = chained(adamw({"lr": 2.0}), adamw({"lr": 4.0}))
    scheduler = opt_param_scheduler(chain)
    states = [copy.deepcopy(one.optimizer.state_dict()) for one in chain.chained_optimizers]
    scheduler.seek(10)
    for one, state in zip(chain.chained_optimizers, states, strict=True):
        one.optimizer.load_state_dict(state)
    assert [1.0, 2.0] == held(chain)


def local_sgd(inner):
    return PostLocalSGDOptimizer(inner, PeriodicModelAverager(period=4, warmup_steps=100))


def named(inner):
    return _NamedOptimizer({"a": inner.param_groups[0]["params"][0]}, lambda *_: inner)


def accelerated(inner):
    from accelerate import Accelerator

    return Accelerator(cpu=True).prepare_optimizer(inner)


def layer_wise(inner):
    from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

    return LayerWiseDummyOptimizer(optimizer_dict={inner.param_groups[0]["params"][0]: inner})


def as_attribute(name):
    """Return what wraps an optimizer as apex, DeepSpeed, fairseq, SAM, timm and opacus do."""

    class Wrapper:
        param_groups = property(lambda self: getattr(self, name).param_groups)

    def wrap(inner):
        wrapper = Wrapper()
        setattr(wrapper, name, inner)
        return wrapper

    return wrap


WRAPPERS = {
    "PostLocalSGDOptimizer": local_sgd,
    "_NamedOptimizer": named,
    "AcceleratedOptimizer": accelerated,
    "LayerWiseDummyOptimizer": layer_wise,
    "ChainedOptimizer": chained,
    "torchft": Delegating,
    "torchtitan": Container,
    "several layers": lambda inner: as_attribute("optimizer")(Delegating(chained(inner))),
    **{
        name: as_attribute(name)
        for name in (
            "optimizer",
            "base_optimizer",
            "_base_optimizer",
            "_optimizer",
            "original_optimizer",
            "base",
        )
    },
}


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=list(WRAPPERS))
def test_the_optimizer_inside_is_written_and_its_loads_are_followed(wrap):
    inner = sgd(weight_decay=0.1)
    wrapper = wrap(inner)
    state = copy.deepcopy(inner.state_dict())
    scheduler = opt_param_scheduler(wrapper)
    scheduler.seek(5)
    assert [0.5] == held(inner)
    inner.load_state_dict(state)
    assert [0.5] == held(inner)


def test_a_container_with_a_dead_group_of_its_own_is_not_written():
    container = Container(adamw(), adamw())
    opt_param_scheduler(container).seek(10)
    assert [[1.0], [1.0], [0.25]] == [held(one) for one in (*container.optimizers, container)]


def test_optimizers_that_name_each_other_are_no_endless_loop():
    outer, inner = SimpleNamespace(param_groups=[]), adamw()
    outer.optimizer, inner.optimizer = inner, outer
    opt_param_scheduler(outer).seek(10)
    assert [1.0] == held(inner)


def test_a_property_that_raises_is_not_what_is_asked_for():
    class Wrapper(Hiding):
        @property
        def optimizer(self):
            raise RuntimeError("there are two")

    wrapper = Wrapper(adamw())
    opt_param_scheduler(wrapper).seek(10)
    assert [1.0] == held(wrapper)


def test_a_subclass_without_hooks_or_anything_inside_is_written():
    class Bare(torch.optim.Optimizer):
        def __init__(self):
            self.param_groups = [new_group(lr=1.0, weight_decay=0.1)]

    optimizer = Bare()
    opt_param_scheduler(optimizer).seek(10)
    assert [1.0] == held(optimizer)


def test_a_wrapper_that_kept_the_groups_from_before_a_load_is_not_written(caplog):
    """As Lightning's, which takes over the attributes of the optimizer inside."""

    class Copying(torch.optim.AdamW):
        def __init__(self, inner):
            self.__dict__ = {**vars(inner), "optimizer": inner}

    inner = adamw()
    wrapper = Copying(inner)
    inner.load_state_dict(inner.state_dict())
    opt_param_scheduler(wrapper).seek(10)
    assert [1.0] == held(inner)
    assert not caplog.records


class TwoSets(torch.optim.Optimizer):
    """An optimizer with groups of its own, and another one inside."""

    def __init__(self, attribute):
        super().__init__([torch.nn.Parameter(torch.ones(2))], {"lr": 0.25, "weight_decay": 0.0})
        setattr(self, attribute, adamw())


@pytest.mark.parametrize(
    "attribute, outer, inner, used",
    [("optim", [1.0], [1.0], "TwoSets"), ("optimizer", [0.25], [1.0], "AdamW")],
)
def test_of_two_sets_of_groups_the_log_names_which_is_scheduled(
    attribute, outer, inner, used, caplog
):
    optimizer = TwoSets(attribute)
    opt_param_scheduler(optimizer).seek(10)
    assert (outer, inner) == (held(optimizer), held(getattr(optimizer, attribute)))
    assert f"the groups of {used} are scheduled" in caplog.text


# What has no load hooks, or a `load_state_dict` that may leave them out.


@pytest.mark.parametrize("build", [in_place, hiding, own_load])
@pytest.mark.parametrize("policy, value", [("config", 2.0), ("checkpoint", 5.0)])
@pytest.mark.parametrize("follow", ["verify", "step", "load"])
def test_overrides_that_a_load_without_hooks_brings_follow_the_policy(
    build, policy, value, follow, caplog
):
    optimizer = build({}, {"max_lr": 2.0})
    scheduler = opt_param_scheduler(optimizer, policy=policy, lr_decay_style="constant")
    other = build({}, {"max_lr": 5.0})
    opt_param_scheduler(other).seek(60)
    scheduler.seek(10)
    state = scheduler.state_dict()
    optimizer.load_state_dict(other.state_dict())
    {
        "verify": scheduler.verify,
        "step": scheduler.step,
        "load": lambda: scheduler.load_state_dict(state),
    }[follow]()
    assert [1.0, value] == held(optimizer)
    assert value == optimizer.param_groups[1]["max_lr"]
    assert "max_lr is 2.0 in the script and 5.0 in the optimizer checkpoint" in caplog.text


@pytest.mark.parametrize("build", [in_place, hiding, own_load])
def test_overrides_of_a_load_without_hooks_before_the_schedulers_follow_the_policy(build):
    saved = build({"max_lr": 5.0})
    state = opt_param_scheduler(saved).state_dict()
    optimizer = build({"max_lr": 2.0})
    scheduler = opt_param_scheduler(optimizer, policy="config")
    optimizer.load_state_dict(saved.state_dict())
    scheduler.load_state_dict(state)
    scheduler.seek(10)
    assert ([2.0], 2.0) == (held(optimizer), optimizer.param_groups[0]["max_lr"])


@pytest.mark.parametrize("build", [in_place, hiding, own_load])
@pytest.mark.parametrize("scheduler_first", [True, False])
def test_a_plain_resume_without_hooks_warns_of_nothing(build, scheduler_first, caplog):
    saved = build({}, {"lr": 3.0})
    saved_scheduler = opt_param_scheduler(saved)
    saved_scheduler.seek(60)
    optimizer = build({}, {"lr": 3.0})
    scheduler = opt_param_scheduler(optimizer)
    loads = [
        lambda: optimizer.load_state_dict(saved.state_dict()),
        lambda: scheduler.load_state_dict(saved_scheduler.state_dict()),
    ]
    for load in reversed(loads) if scheduler_first else loads:
        load()
    scheduler.verify()
    scheduler.step()
    assert pytest.approx([0.541, 1.623]) == held(optimizer)
    assert [] == [record.message for record in caplog.records if record.levelname == "WARNING"]


def test_what_a_load_without_hooks_carried_is_compared_with_the_schedulers_checkpoint(caplog):
    saved = in_place({})
    saved_scheduler = opt_param_scheduler(saved)
    saved_scheduler.seek(60)
    saved.param_groups[0]["lr"] = 0.75
    optimizer = in_place({})
    scheduler = opt_param_scheduler(optimizer)
    optimizer.load_state_dict(saved.state_dict())
    scheduler.load_state_dict(saved_scheduler.state_dict())
    assert "group 0: lr is 0.75 in the optimizer checkpoint" in caplog.text
    assert pytest.approx([0.55]) == held(optimizer)


@pytest.mark.parametrize("build", [in_place, hiding])
def test_verify_writes_again_what_a_load_without_hooks_has_changed_and_says_so(build, caplog):
    optimizer = build({})
    scheduler = opt_param_scheduler(optimizer)
    state = optimizer.state_dict()
    scheduler.seek(10)
    optimizer.load_state_dict(state)
    scheduler.verify()
    assert [1.0] == held(optimizer)
    assert "group 0: lr was 0.0 instead of the written 1.0; it was written again" in caplog.text


def test_a_step_names_once_what_the_update_before_it_used_in_place_of_the_schedules(caplog):
    optimizer = in_place({})
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    for _ in range(3):
        optimizer.param_groups[0]["lr"] = 0.5
        scheduler.step()
    (record,) = caplog.records
    assert "group 0: lr was 0.5 instead of the written 1.0; it was written again" == record.message


def test_of_many_differences_the_log_has_the_first(caplog):
    optimizer = in_place(*[{}] * 100)
    scheduler = opt_param_scheduler(optimizer)
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    scheduler.verify()
    (record,) = caplog.records
    assert (16, "... and 85 more") == (record.message.count("group") + 1, record.message[-15:])


def test_a_seek_after_a_load_without_hooks_names_nothing(caplog):
    optimizer = in_place({})
    scheduler = opt_param_scheduler(optimizer)
    optimizer.param_groups[0]["lr"] = 0.5
    scheduler.seek(60)
    assert not caplog.records


def test_a_load_that_was_replaced_on_the_object_may_run_no_hooks():
    optimizer = adamw()
    optimizer.load_state_dict = lambda _: optimizer.param_groups[0].update(lr=0.25)
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    optimizer.load_state_dict({})
    scheduler.verify()
    assert [1.0] == held(optimizer)


def test_overrides_edited_without_a_load_take_effect_at_the_next_step():
    optimizer = in_place({})
    scheduler = opt_param_scheduler(optimizer, policy="config")
    scheduler.seek(10)
    optimizer.param_groups[0]["max_lr"] = 4.0
    scheduler.seek(10)
    assert [4.0] == held(optimizer)
    state = in_place({}).state_dict()
    optimizer.load_state_dict(state)
    scheduler.seek(10)
    assert [4.0] == held(optimizer)


def test_an_illegal_override_of_a_load_without_hooks_is_named_and_not_used(caplog):
    optimizer = in_place({"max_lr": 2.0})
    scheduler = opt_param_scheduler(optimizer)
    other = in_place({"max_lr": float("nan")})
    other.param_groups[0]["lr"] = 0.5
    optimizer.load_state_dict(other.state_dict())
    scheduler.seek(10)
    assert [2.0] == held(optimizer)
    assert "group 0: max_lr=nan" in caplog.text


@FLOAT_AND_TENSOR_LR
def test_verify_sees_what_was_written_into_the_very_tensors(build, caplog):
    optimizer = InPlace(build())
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    group = optimizer.param_groups[0]
    group["lr"] = group["lr"].fill_(0.5) if build is not adamw else 0.5
    scheduler.verify()
    assert [1.0] == held(optimizer)
    assert "group 0: lr was 0.5 instead of the written 1.0" in caplog.text


def test_an_optimizer_without_load_hooks_is_freed():
    optimizer = own_load({})
    optimizer.param_groups[0]["params"][0].owner = optimizer
    scheduler = opt_param_scheduler(optimizer)
    scheduler.seek(10)
    scheduler.load_state_dict(scheduler.state_dict())
    reference = weakref.ref(optimizer)
    del optimizer, scheduler
    gc.collect()
    assert reference() is None


@FLOAT_AND_TENSOR_LR
def test_after_a_load_without_hooks_the_scripts_own_tensors_are_put_back(build):
    optimizer = Hiding(build({}, {"lr": 3.0}))
    scheduler = opt_param_scheduler(optimizer)
    own = [group["lr"] for group in optimizer.param_groups]
    optimizer.load_state_dict(optimizer.state_dict())
    scheduler.seek(10)
    assert [1.0, 3.0] == held(optimizer)
    now = [group["lr"] for group in optimizer.param_groups]
    assert [type(one) for one in own] == [type(one) for one in now]
    assert all(one is another for one, another in zip(own, now, strict=True) if build is not adamw)


class NewDicts:
    """A facade that makes new dicts each time its groups are read."""

    def __init__(self, inner):
        self.inner = inner

    @property
    def param_groups(self):
        return [dict(group) for group in self.inner.param_groups]


@pytest.mark.parametrize("lr", [0.5, 1.0])
def test_groups_that_keep_nothing_of_what_is_written_are_refused(lr):
    inner = adamw(lr=lr)
    with pytest.raises(ConfigError, match=r"values written into group 0 of NewDicts are lost \(lr"):
        opt_param_scheduler(NewDicts(inner))
    assert [lr] == held(inner)


def test_groups_that_keep_nothing_cannot_be_assigned():
    scheduler = opt_param_scheduler(optimizer := adamw())
    with pytest.raises(ConfigError, match="values written into group 0"):
        scheduler.optimizer = NewDicts(adamw())
    assert optimizer is scheduler.optimizer


def test_groups_that_a_load_cannot_write_are_named(caplog):
    class Stubborn(dict):
        is_closed = False

        def __setitem__(self, key, value):
            if not self.is_closed:
                super().__setitem__(key, value)

    group = Stubborn(params=[], lr=1.0, weight_decay=0.1)
    scheduler = opt_param_scheduler(SimpleNamespace(param_groups=[group]))
    scheduler.seek(10)
    state = scheduler.state_dict()
    scheduler.seek(0)
    group.is_closed = True
    scheduler.load_state_dict(state)
    assert "the groups do not hold the loaded values:\ngroup 0: lr is 0.0" in caplog.text


# ZeroRedundancyOptimizer: the outer groups are the script's, those inside a shard's.


def updates(optimizer):
    """Return how far an update at a gradient of zero moves ones: lr times weight decay."""
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.data.fill_(1.0)
            param.grad = torch.zeros(2)
    optimizer.step()
    return [round(1 - group["params"][0][0].item(), 6) for group in optimizer.param_groups]


@pytest.mark.usefixtures("_alone")
def test_zero_redundancy_uses_what_is_written_into_its_own_groups():
    optimizer = zero({}, {"lr": 3.0})
    scheduler = opt_param_scheduler(optimizer, start_wd=0.1, lr_decay_style="constant")
    assert [optimizer] == scheduler._writer.tracker.optimizers()
    scheduler.seek(10)
    assert [1.0, 3.0] == held(optimizer)
    assert [0.1, 0.3] == updates(optimizer)


@pytest.mark.usefixtures("_alone")
@pytest.mark.parametrize("order", ["optimizer first", "scheduler first"])
@pytest.mark.parametrize("policy, value", [("config", 2.0), ("checkpoint", 5.0)])
def test_the_first_update_after_a_load_of_zero_redundancy_is_the_schedules(order, policy, value):
    entries = {"policy": policy, "start_wd": 0.1, "lr_decay_style": "constant"}
    saved = zero({}, {"max_lr": 5.0})
    saved_scheduler = opt_param_scheduler(saved, **entries)
    saved_scheduler.seek(10)
    saved.consolidate_state_dict()
    optimizer = zero({}, {"max_lr": 2.0})
    scheduler = opt_param_scheduler(optimizer, **entries)
    loads = [
        lambda: optimizer.load_state_dict(copy.deepcopy(saved.state_dict())),
        lambda: scheduler.load_state_dict(saved_scheduler.state_dict()),
    ]
    for load in loads if order == "optimizer first" else reversed(loads):
        load()
    assert [0.1, value / 10] == updates(optimizer)
    assert [1.0, value] == held(optimizer)


@pytest.mark.usefixtures("_alone")
def test_overrides_of_zero_redundancy_follow_the_policy_where_a_load_changes_no_value():
    saved = zero({"max_lr": 5.0})
    opt_param_scheduler(saved)
    saved.consolidate_state_dict()
    optimizer = zero({"max_lr": 2.0})
    scheduler = opt_param_scheduler(optimizer, policy="config")
    optimizer.load_state_dict(copy.deepcopy(saved.state_dict()))
    scheduler.seek(10)
    assert ([2.0], 2.0) == (held(optimizer), optimizer.param_groups[0]["max_lr"])


@pytest.mark.usefixtures("_alone")
def test_the_scripts_own_tensors_are_put_back_after_a_load_of_zero_redundancy():
    optimizer = zero({}, lr=torch.tensor(1.0))
    scheduler = opt_param_scheduler(optimizer, start_wd=0.1)
    scheduler.seek(10)
    own = optimizer.param_groups[0]["lr"]
    optimizer.consolidate_state_dict()
    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert [0.1] == updates(optimizer)
    assert own is optimizer.param_groups[0]["lr"]


def test_an_update_after_a_load_without_hooks_uses_the_schedulers_values():
    optimizer = own_load({})
    scheduler = opt_param_scheduler(optimizer, start_wd=0.1)
    state = optimizer.state_dict()
    scheduler.seek(10)
    optimizer.load_state_dict(state)
    assert [0.1] == updates(optimizer)


def test_an_update_at_an_lr_that_something_else_wrote_is_left_alone():
    """As DCP does, to create an optimizer's state without moving its parameters."""
    optimizer = own_load({})
    scheduler = opt_param_scheduler(optimizer, start_wd=0.1)
    scheduler.seek(10)
    optimizer.param_groups[0]["lr"] = 0.0
    assert [0.0] == updates(optimizer)


# What is no optimizer.


class Broken:
    @property
    def param_groups(self):
        raise RuntimeError("not yet")


@pytest.mark.parametrize(
    "bad, message",
    [
        (
            {"secret": 1},
            "^optimizer: must be an optimizer .with param_groups. or a list of them, not dict$",
        ),
        (3, "a list of them, not int$"),
        (torch.optim.AdamW, "not the class AdamW$"),
        (
            [adamw(), "adamw"],
            r"^optimizer\[1\]: must be an optimizer .with param_groups., not str$",
        ),
        (Broken(), "^optimizer: the param_groups of Broken cannot be read: RuntimeError"),
    ],
)
def test_what_is_no_optimizer_is_named_by_its_type(bad, message):
    with pytest.raises(ConfigError, match=message):
        opt_param_scheduler(bad)
