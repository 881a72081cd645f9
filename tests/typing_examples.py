"""Legal uses of the public surface, which strict typing must accept. Nothing here is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from dist_sched import (
    ConfigError,
    OptimizerParamScheduler,
    ParamScheduler,
    Phase,
    Plateau,
    RankMismatchError,
    ReconcileError,
    Schedule,
    StateError,
    adapters,
    checkpoint,
    from_config,
    reconcile,
    schedules,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch.distributed.checkpoint.stateful import Stateful

weights = [torch.nn.Parameter(torch.zeros(1))]
optimizer = torch.optim.AdamW(weights, lr=1e-3)


class Wrapped:
    """What Megatron-LM hands over: no Optimizer, but it has the groups of one."""

    def __init__(self) -> None:
        self.param_groups: list[dict[str, Any]] = optimizer.param_groups


def construct_by_position() -> OptimizerParamScheduler:
    return OptimizerParamScheduler(
        optimizer, 0.0, 1e-3, 1e-5, 10, 100, "cosine", 0.01, 0.1, 100, "linear", False, True
    )


def construct_by_name() -> OptimizerParamScheduler:
    return OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=1e-3,
        min_lr=1e-5,
        lr_warmup_steps=10,
        lr_decay_steps=100,
        lr_decay_style="WSD",
        start_wd=0.1,
        end_wd=0.1,
        wd_incr_steps=0,
        wd_incr_style="constant",
        wsd_decay_steps=20,
        lr_wsd_decay_style="minus_sqrt",
        policy={"lr_decay_steps": "config", "*": "checkpoint"},
        unit="tokens",
        keep_group_ratios=False,
        process_group=None,
    )


def construct_over_many(config: Mapping[str, Any]) -> None:
    OptimizerParamScheduler([optimizer, torch.optim.SGD(weights, lr=0.1)], **config)
    OptimizerParamScheduler(Wrapped(), **config, policy="strict")
    OptimizerParamScheduler([Wrapped()], **config)


def construct_with_fractions(config: Mapping[str, Any]) -> None:
    OptimizerParamScheduler(optimizer, **config)
    OptimizerParamScheduler(
        optimizer, 0, 1, 0, 37.5, 100, "linear", 0, 0, 100, "constant", policy="config"
    )


def move(scheduler: OptimizerParamScheduler) -> None:
    scheduler.step()
    scheduler.step(512)
    scheduler.step(increment=0)
    scheduler.seek(1000)
    scheduler.num_steps = 1000
    scheduler.check_position(1000)


def read_values(scheduler: OptimizerParamScheduler) -> list[float]:
    group = optimizer.param_groups[0]
    values: list[float] = [scheduler.get_lr(group), scheduler.get_wd(), scheduler.get_wd(group)]
    return values + scheduler.get_last_lr()


def read_config(scheduler: OptimizerParamScheduler) -> tuple[int, str, list[float]]:
    return (
        scheduler.num_steps,
        scheduler.lr_decay_style,
        [scheduler.init_lr, scheduler.max_lr, scheduler.min_lr, scheduler.lr_warmup_steps],
    )


def save_and_load(scheduler: OptimizerParamScheduler) -> dict[str, Any]:
    state: dict[str, Any] = scheduler.state_dict()
    scheduler.load_state_dict(state)
    scheduler.load_state_dict(state, expected_position=1000, local=True)
    return state


def hand_to_dcp(scheduler: OptimizerParamScheduler) -> dict[str, Stateful]:
    return {"scheduler": scheduler}


def agree(scheduler: OptimizerParamScheduler) -> None:
    scheduler.synchronize()
    scheduler.verify()


def rehearse(config: dict[str, Any], state: dict[str, Any]) -> list[str]:
    outcome = reconcile(config, state, policy={"max_lr": "config", "*": "checkpoint"})
    return [row.name for row in outcome.changed]


def read_and_load(scheduler: OptimizerParamScheduler, path: Path) -> str:
    state, where = checkpoint.read_state(path, key="app.scheduler")
    exported: dict[str, int | float | str] = checkpoint.to_megatron_state(state)
    found = checkpoint.load(scheduler, str(path), expected_position=int(exported["num_steps"]))
    return f"{where.path} {where.key} {found.format}"


def load_from_elsewhere(scheduler: OptimizerParamScheduler, state: dict[str, Any]) -> int:
    return scheduler.load_with(lambda: (state, 7), local=True)


def report(scheduler: OptimizerParamScheduler) -> str:
    reconciliation = scheduler.last_reconciliation
    if reconciliation is None or reconciliation.is_equal:
        return "nothing was loaded, or all is equal"
    other: str | dict[str, str] | None = reconciliation.alternative
    moved = [value.field for value in reconciliation.next_update if value.moves]
    return f"{reconciliation}\n{reconciliation.table()}\n{other} {moved}"


def found(scheduler: ParamScheduler) -> dict[str, int | float | None]:
    return {finding.code: finding.position for finding in scheduler.lint(updates=1_000)}


def read_extras(scheduler: ParamScheduler) -> float:
    values: dict[str, float] = scheduler.extras
    return values["batch_size"]


def draw() -> list[float | str]:
    rise = Phase("linear", 2_000, end=3e-4, start=0.0)
    schedule = Schedule([rise, Phase("cosine", 98_000, end=3e-5, exponent=1.5)])
    again: Schedule = Schedule.from_dict(schedule.to_dict())
    again = schedules.from_peer("torchtitan", {"lr": 3e-4, "training_steps": 100_000})
    return [again(2_000), schedule.horizon, *(finding.level for finding in schedule.lint())]


def schedule_anything(optimizer: torch.optim.Optimizer) -> ParamScheduler:
    return ParamScheduler(
        optimizer,
        {
            "lr": schedules.wsd(3e-4, 100_000, warmup=2_000, decay=20_000),
            "weight_decay": schedules.proportional_to(at_max=0.1, power=0.5),
            "momentum": schedules.piecewise([(0, 0.85), (300, 0.95)]),
            "betas[0]": 0.9,
        },
        groups={
            "embed*": {"lr": 0.5},
            "head": {"lr": schedules.linear(1e-3, 10_000, 100, warmup_shape={"shape": "rex"})},
        },
        extras={"batch_size": schedules.linear(256, 10_000), "aux_loss_weight": 0.01},
        policy={"lr.phases[1].steps": "config", "*": "checkpoint"},
        unit="tokens",
    )


def change_late(scheduler: ParamScheduler | OptimizerParamScheduler) -> list[str]:
    scheduler.cooldown(1_000, shape="linear", end=0.0)
    scheduler.extend(200_000, allow_jump=True)
    scheduler.rewarm(100, peak=1e-4, field="weight_decay")
    return [f"{change.position} {change.operation}" for change in scheduler.history]


def follow_a_metric(scheduler: ParamScheduler, losses: list[torch.Tensor]) -> bool:
    plateau = Plateau(scheduler, factor=0.5, patience=3, threshold_mode="abs", reduce="mean")
    stateful: Stateful = plateau
    cut = [plateau.update(loss) for loss in losses]
    saved: dict[str, int | float | str] = plateau.state_dict()
    plateau.load_state_dict(saved)
    return any(cut) and plateau.best < 1.0 and stateful is plateau


def adapt(scheduler: ParamScheduler, path: Path) -> list[float]:
    adapter = adapters.as_lr_scheduler(scheduler, increment=lambda: 4096)
    torchs: torch.optim.lr_scheduler.LRScheduler = adapter
    torchs.step()
    used: dict[str, float] = adapters.metrics(adapter, path, print, step=adapter.last_epoch)
    return [*adapter.get_last_lr(), *adapter.base_lrs, *used.values()]


def build_from_a_file(
    optimizer: torch.optim.Optimizer, path: Path
) -> OptimizerParamScheduler | ParamScheduler:
    first = from_config(optimizer, path)
    return from_config(optimizer, first.to_config())


def catch(scheduler: OptimizerParamScheduler, state: dict[str, Any]) -> str:
    try:
        scheduler.load_state_dict(state)
    except ReconcileError as error:
        return str(error.reconciliation)
    except (ConfigError, StateError, RankMismatchError) as error:
        return str(error)
    return ""


def catch_as_from_megatron_lm(scheduler: OptimizerParamScheduler, state: dict[str, Any]) -> None:
    try:
        scheduler.load_state_dict(state)
    except AssertionError as error:
        raise SystemExit(str(error)) from error
