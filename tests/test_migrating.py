"""The code on the pages about migrating runs, and has the values of what it replaces."""

from __future__ import annotations

import itertools
import logging
import math
import re

import pytest
import torch
import torch.distributed.checkpoint as dcp
from transformers import get_scheduler

from dist_sched import OptimizerParamScheduler, ParamScheduler, Phase, Schedule, schedules
from migrating_helpers import EPOCH, blocks, code, names, pairs, rows, run, text_of
from oracle.conftest import load_megatron, load_nemo

CLOSE = 1e-13
"""Of the peak: how near values are that torch sums up."""
UPDATES = 1_000
SAVED = 500


def near(values, peak=1e-3):
    return pytest.approx(values, rel=0, abs=CLOSE * peak)


def held(optimizer):
    return [[group["lr"], *group["betas"]] for group in optimizer.param_groups]


def used(page, source, updates):
    """Return lr and betas of every group at every update, as code of a page schedules them."""
    found = []
    left = {}

    def update():
        found.append(held(left["optimizer"]))
        left["optimizer"].step()

    def train_one_epoch():
        for _ in range(EPOCH):
            update()

    metrics = itertools.chain([1.0, 0.5], itertools.repeat(0.5))
    epochs = {"train_one_epoch": train_one_epoch, "validate": lambda: next(metrics)}
    left.update(names(page, **epochs))
    for block in blocks(page)[:1]:
        exec(block, left)  # noqa: S102 - the imports of the page
    for part in source:
        exec(part, left)  # noqa: S102
    if not found:
        for _ in range(updates + 1):
            update()
            left["scheduler"].step()
    return found


def compare(page, before, after, last=UPDATES, peak=1e-3):
    """Compare what two pieces of code use at every update, up to a position."""
    theirs, ours = (used(page, source, last) for source in ([before], [after]))
    assert len(theirs) == len(ours)
    for position, (expected, found) in enumerate(zip(theirs, ours, strict=True)):
        lr, betas = [[each[at] for each in expected] for at in (0, slice(1, 3))]
        assert near(lr, peak) == [each[0] for each in found], position
        assert [near(each, 1.0) for each in betas] == [each[1:] for each in found], position
    return theirs


def beyond(page, before, last):
    """Return what a scheduler does in the ten updates past its end, in the words of the pages."""
    try:
        values = [update[0][0] for update in used(page, [before], last + 10)]
    except ValueError:
        return "raises"
    change = values[-1] - values[last]
    if abs(change) < CLOSE:
        return "stays"
    return "goes on falling" if change < 0 else "climbs back"


# torch

TORCH = pairs("torch")
LAST = {"CosineAnnealingWarmRestarts": 699, "OneCycleLR": 999}
"""Past these positions a class of torch begins anew, or raises an error."""
PEAKS = {"OneCycleLR": 1e-2}
SHARED = {"LambdaLR": "def factor(step):\n    return 1 / (1 + step / 100)\n"}
FUNCTIONS = [pair for pair in TORCH if "get_lr" in pair[1]]
IN_TRAINERS = [pair for pair in TORCH if "configure_optimizers" in pair[1]]
"""Those are run in tests/frameworks."""
BY_UPDATE = [pair for pair in TORCH if pair not in FUNCTIONS + IN_TRAINERS]


def numbered(found):
    return [pytest.param(*pair, id=f"{at} {pair[0]}") for at, pair in enumerate(found)]


@pytest.mark.parametrize("heading, before, after", numbered(BY_UPDATE))
def test_torchs_values_are_those_of_what_replaces_it(heading, before, after):
    after = SHARED.get(heading, "") + after
    compare("torch", before, after, LAST.get(heading, UPDATES), PEAKS.get(heading, 1e-3))


@pytest.mark.parametrize("heading, before, after", numbered(FUNCTIONS))
def test_a_function_of_the_step_has_the_values_of_the_schedule(heading, before, after):
    left = run("torch", without=["checkpoint.pt"])
    exec(f"import math\n{before}{after}", left)  # noqa: S102
    theirs, ours = left["get_lr"], left["schedule"]
    assert heading == "Loops that write lr themselves"
    updates = left.get("updates", 1)  # of an epoch, where that is what theirs counts
    positions = range(int(ours.horizon) // updates + 10)
    assert near([theirs(n) for n in positions]) == [ours(n * updates) for n in positions]


@pytest.mark.parametrize(
    "heading, word",
    [
        ("CosineAnnealingLR", "climbs back"),
        ("CosineAnnealingWarmRestarts", "starts another cycle"),
        ("OneCycleLR", "raises"),
        ("CyclicLR", "goes on cycling"),
        ("StepLR and MultiStepLR", "goes on falling"),
        ("ExponentialLR and MultiplicativeLR", "goes on falling"),
        ("PolynomialLR", "stays"),
        ("LinearLR and ConstantLR", "stays"),
    ],
)
def test_the_page_says_what_torch_does_past_the_end(heading, word):
    before = next(before for name, before, _ in TORCH if name == heading)
    last = {"CosineAnnealingWarmRestarts": 699, "StepLR and MultiStepLR": 1_190}.get(
        heading, LAST.get(heading, UPDATES)
    )
    climbs = {"starts another cycle": "climbs back", "goes on cycling": "climbs back"}
    assert climbs.get(word, word) == beyond("torch", before, last)
    (row,) = [row for row in rows("torch", "torch") if f"](#{anchor(heading)})" in row[0]]
    assert word in row[2]


def anchor(heading):
    return re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-")


def test_the_defaults_of_one_cycle_are_those_of_torch():
    before = "scheduler = lr_scheduler.OneCycleLR(optimizer, 1e-2, 1_000, cycle_momentum=False)"
    after = 'scheduler = ParamScheduler(optimizer, {"lr": schedules.one_cycle(1e-2, 999)})'
    compare("torch", before, after, 999, 1e-2)


def test_a_list_of_max_lr_is_the_lr_of_the_groups():
    groups = '{"params": body, "lr": 1e-3}, {"params": head, "lr": 1e-2}'
    before = (
        f"optimizer = torch.optim.AdamW([{groups}])\n"
        "scheduler = lr_scheduler.OneCycleLR(optimizer, [1e-3, 1e-2], 1_000, cycle_momentum=False)"
    )
    after = (
        f"optimizer = torch.optim.AdamW([{groups}])\n"
        'scheduler = ParamScheduler(optimizer, {"lr": schedules.one_cycle(1e-2, 999)})'
    )
    compare("torch", before, after, 999, 1e-2)


def test_timms_cosine_after_its_warmup_is_one_schedule():
    (written,) = re.findall(r"`(schedules.cosine\(1e-3, 12 \* updates[^`]*)`", text_of("torch"))
    ours = eval(written, {"schedules": schedules, "updates": EPOCH})  # noqa: S307

    def peer(epoch):
        if epoch < 2:
            return 1e-5 + epoch * (1e-3 - 1e-5) / 2
        return 1e-6 + 0.5 * (1e-3 - 1e-6) * (1 + math.cos(math.pi * (epoch - 2) / 10))

    assert near([peer(n) for n in range(13)]) == [ours(n * EPOCH) for n in range(13)]


def test_triangular2_is_a_cycle_decay_of_a_half():
    cycle = "base_lr=1e-4, max_lr=1e-3, step_size_up=100, mode='triangular2', cycle_momentum=False"
    before = f"scheduler = lr_scheduler.CyclicLR(optimizer, {cycle})"
    ours = "schedules.cyclic(1e-3, 1_000, floor=1e-4, up=100, cycle_decay=0.5)"
    compare("torch", before, f'scheduler = ParamScheduler(optimizer, {{"lr": {ours}}})')


def test_a_linear_decay_is_that_of_torch():
    (theirs,) = re.findall(r"`(LinearLR\(start_factor=1.0.*?\))`", text_of("torch"))
    (ours,) = re.findall(r"`(schedules.linear\(1e-3, 1_000, floor=1e-4\))`", text_of("torch"))
    before = f"scheduler = lr_scheduler.{theirs.replace('(', '(optimizer, ')}"
    compare("torch", before, f'scheduler = ParamScheduler(optimizer, {{"lr": {ours}}})')


@pytest.mark.parametrize("swa_lr, change", [(1e-4, "cooldown"), (1e-2, "rewarm")])
def test_swalr_is_a_late_change(swa_lr, change):
    how = "anneal_strategy='cos'" if change == "cooldown" else "anneal_strategy='linear'"
    before = f"scheduler = torch.optim.swa_utils.SWALR(optimizer, {swa_lr}, 10, {how})"
    call = {
        "cooldown": f'cooldown(10, "cosine", end={swa_lr})',
        "rewarm": f"rewarm(10, peak={swa_lr})",
    }
    after = f'scheduler = ParamScheduler(optimizer, {{"lr": 1e-3}})\nscheduler.{call[change]}'
    compare("torch", before, after, 20, 1e-2)


def test_a_chained_cosine_with_a_floor_has_no_formula():
    parts = (
        "[lr_scheduler.ExponentialLR(optimizer, 0.99),"
        "lr_scheduler.CosineAnnealingLR(optimizer, 100, eta_min=1e-4)]"
    )
    before = f"scheduler = lr_scheduler.ChainedScheduler({parts})"
    ours = "schedules.product(schedules.exponential(1.0, 100, floor=0.99**100), "
    ours += "schedules.cosine(1e-3, 100, floor=1e-4))"
    with pytest.raises(AssertionError):
        compare(
            "torch", before, f'scheduler = ParamScheduler(optimizer, {{"lr": {ours}}})', last=90
        )


def fairseq_inverse_sqrt(n):
    return 1e-7 + (1e-3 - 1e-7) * n / 100 if n < 100 else 1e-3 * 10 * n**-0.5


def fairseq_polynomial(n):
    return 1e-3 * n / 100 if n <= 100 else (1e-3 - 1e-5) * (1 - (n - 100) / 900) + 1e-5


def fairseq_cosine(n):
    if n < 100:
        return 1e-7 + (1e-3 - 1e-7) * n / 100
    return 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + math.cos(math.pi * (n - 100) / 900))


@pytest.mark.parametrize("peer", [fairseq_inverse_sqrt, fairseq_polynomial, fairseq_cosine])
def test_fairseqs_values_are_those_of_what_replaces_them(peer):
    word = peer.__name__.split("_")[1]
    cell = next(row[1] for row in rows("torch", "fairseq") if word in row[0])
    ours = eval(code(cell))  # noqa: S307
    assert near([peer(n) for n in range(UPDATES + 1)]) == [ours(n) for n in range(UPDATES + 1)]


# transformers

ROWS = [pytest.param(*row, id=code(row[0])) for row in rows("transformers", "`lr_scheduler_type`")]


def of_transformers(cell, positions):
    name, *kwargs = re.findall(r"`([^`]+)`", cell)
    own = eval(f"dict({', '.join(kwargs)})")  # noqa: S307
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=3e-4)
    scheduler = get_scheduler(name, optimizer, 100, UPDATES, own)
    (factor,) = scheduler.lr_lambdas
    return {n: 3e-4 * factor(n) for n in positions}


@pytest.mark.parametrize("theirs, ours, past", ROWS)
def test_transformers_values_are_those_of_what_replaces_them(theirs, ours, past):
    schedule = eval(code(ours), {"lr": 3e-4, "steps": UPDATES, "warmup": 100, "schedules": schedules})  # noqa: S307, E501 # fmt: skip
    expected = of_transformers(theirs, range(UPDATES + 1))
    differing = [n for n, lr in expected.items() if abs(lr - schedule(n)) > CLOSE * 3e-4]
    # By the rounding of transformers, as the page says.
    assert differing == [400] * ("restarts" in theirs) or [] == differing
    after = of_transformers(theirs, [UPDATES, UPDATES + 100])
    change = after[UPDATES + 100] - after[UPDATES]
    word = "stays" if abs(change) < 1e-15 else "climbs" if change > 0 else "falling"
    assert word in past


@pytest.mark.parametrize("theirs, ours, past", ROWS)
def test_from_peer_reads_what_the_page_writes_out(theirs, ours, past):  # noqa: ARG001
    name, *kwargs = re.findall(r"`([^`]+)`", theirs)
    block = {"learning_rate": 3e-4, "warmup_steps": 100, "max_steps": UPDATES}
    own = eval(f"dict({', '.join(kwargs)})")  # noqa: S307
    block |= {"lr_scheduler_type": name, "lr_scheduler_kwargs": own}
    read = schedules.from_peer("transformers", block)
    written = eval(code(ours), {"lr": 3e-4, "steps": UPDATES, "warmup": 100, "schedules": schedules})  # noqa: S307, E501 # fmt: skip
    positions = range(UPDATES + 100)
    assert near([read(n) for n in positions]) == [written(n) for n in positions]


def test_a_wsd_of_transformers_with_a_lowest_value_starts_there():
    theirs = (
        "`warmup_stable_decay`, `num_decay_steps=200`, `min_lr_ratio=0.1`, `decay_type='1-sqrt'`"
    )
    own = {"start": 3e-5, "floor": 3e-5, "decay": 200, "decay_shape": "minus_sqrt"}
    ours = schedules.wsd(3e-4, UPDATES, 100, **own)
    expected = of_transformers(theirs, range(UPDATES + 10))
    assert near(list(expected.values())) == [ours(n) for n in expected]


@pytest.mark.parametrize("heading, before, after", numbered(pairs("transformers")))
def test_a_loop_of_transformers_has_the_same_values(heading, before, after, monkeypatch):
    accelerate = pytest.importorskip("accelerate")
    stub = f"from transformers import get_cosine_schedule_with_warmup\n{before}"
    import migrating_helpers

    accelerator = accelerate.Accelerator(cpu=True)
    original = migrating_helpers.names
    monkeypatch.setitem(
        globals(), "names", lambda page, **more: original(page, accelerator=accelerator, **more)
    )
    assert heading in {"A loop of your own", "accelerate without the Trainer"}
    compare("transformers", stub, after, peak=3e-4)


# DeepSpeed


def test_deepspeeds_types_are_a_schedule_one_update_late():
    names = {"schedules": schedules, "high": 1e-3, "low": 1e-4, "w": 100, "total": UPDATES}
    for kind, written, _ in rows("deepspeed", "`type`")[:2]:
        params = {"warmup_min_lr": 1e-4, "warmup_max_lr": 1e-3, "warmup_num_steps": 100}
        params |= {"warmup_type": "linear"}
        params |= {"total_num_steps": UPDATES} if "Decay" in kind else {}
        block = {"type": code(kind), "params": params}
        theirs, ours = schedules.from_peer("deepspeed", block), eval(code(written), names)  # noqa: S307
        assert near([1e-4, *(ours(n) for n in range(1_100))]) == [theirs(n) for n in range(1_101)]


def test_deepspeeds_logarithmic_warmup_is_a_warmup_shape():
    params = {"warmup_max_lr": 1e-3, "warmup_num_steps": 100}
    theirs = schedules.from_peer("deepspeed", {"type": "WarmupLR", "params": params})
    ours = schedules.constant(1e-3, warmup=99, warmup_shape="log")
    assert near([ours(n) for n in range(200)]) == [theirs(n + 1) for n in range(200)]


def test_deepspeeds_other_types_are_on_time():
    left = run("deepspeed", without=["runs/deepspeed"])
    cycle = schedules.cyclic(1e-3, 600, floor=1e-4, up=300)
    line = Schedule([Phase("linear", UPDATES, start=1e-5, end=1e-5 * (1 + UPDATES / 100))])
    positions = range(UPDATES + 100)
    assert near([cycle(n) for n in positions]) == [left["cycle"](n) for n in positions]
    assert near([line(n) for n in positions]) == [left["range_test"](n) for n in positions]
    # betas[0] of DeepSpeed falls as lr rises; only its first value is another.
    beta = [0.9 - 0.1 * (cycle(n) - 1e-4) / 9e-4 for n in positions]
    assert near(beta, 1.0) == [left["beta"](n) for n in positions]
    decay = schedules.cosine(1e-3, UPDATES, warmup=100, floor=1e-4)
    after = range(101, UPDATES + 100)
    assert near([decay(n) for n in after]) == [left["cosine"](n) for n in after]


# Megatron-LM and NeMo AutoModel


def megatron(optimizer, **changes):
    """Build Megatron's scheduler as its `get_optimizer_param_scheduler` does for the page."""
    samples = 1_000 * 256
    config = {
        "init_lr": 0.0, "max_lr": 1e-3, "min_lr": 1e-4, "lr_warmup_steps": 0.1 * samples,
        "lr_decay_steps": samples, "lr_decay_style": "cosine", "start_wd": 0.1, "end_wd": 0.1,
        "wd_incr_steps": samples, "wd_incr_style": "constant",
    }  # fmt: skip
    return load_megatron()(optimizer, **{**config, **changes})


def at_positions(scheduler, positions):
    """Return lr and weight decay that a scheduler writes at each position."""
    group = scheduler.optimizer.param_groups[0]
    found = []
    for position in positions:
        scheduler.num_steps = 0
        scheduler.step(increment=position)
        found.append((group["lr"], group["weight_decay"]))
    return found


def ours_at(scheduler, positions):
    group = scheduler.optimizer.param_groups[0]
    found = []
    for position in positions:
        scheduler.seek(position)
        found.append((group["lr"], group["weight_decay"]))
    return found


SAMPLES = [0, 1, 256, 12_800, 25_599, 25_600, 25_601, 128_000, 230_000, 255_999, 256_000, 10**6]


def test_megatrons_arguments_make_the_same_bits():
    left = run("megatron", without=["runs/megatron"])
    theirs = megatron(names()["optimizer"])
    assert at_positions(theirs, SAMPLES) == ours_at(left["scheduler"], SAMPLES)
    by_phases = ours_at(left["by_phases"], SAMPLES)
    assert near([lr for lr, _ in at_positions(theirs, SAMPLES)]) == [lr for lr, _ in by_phases]


TAILS = ["linear", "cosine", "minus_sqrt", "exponential"]
STYLES = [
    (code(row[0]), code(row[1]), tail)
    for row in rows("megatron", "`lr_decay_style`")
    for tail in (TAILS if "WSD" in row[0] else TAILS[:1])
]


@pytest.mark.parametrize("style, written, tail", STYLES)
def test_megatrons_styles_have_a_named_schedule(style, written, tail):
    entries = {"lr_decay_style": style, "init_lr": 1e-5}
    if style == "WSD":
        entries |= {"wsd_decay_steps": 51_200, "lr_wsd_decay_style": tail}
    values = {"h": 256_000, "w": 25_600, "max_lr": 1e-3, "min_lr": 1e-4, "init_lr": 1e-5}
    shape = "halving" if tail == "exponential" else tail
    ours = eval(written, {"schedules": schedules, "d": 51_200, "shape": shape, **values})  # noqa: S307
    theirs = at_positions(megatron(names()["optimizer"], **entries), SAMPLES)
    expected = {n: lr for n, (lr, _) in zip(SAMPLES, theirs, strict=True)}
    if style == "inverse-square-root":
        assert 1e-4 == expected.pop(10**6) < ours(10**6)
    assert near(list(expected.values())) == [ours(n) for n in expected]


@pytest.mark.parametrize("style", ["linear", "cosine"])
def test_megatrons_rise_of_weight_decay_is_a_warmup(style):
    entries = {"start_wd": 0.01, "end_wd": 0.1, "wd_incr_style": style}
    theirs = at_positions(megatron(names()["optimizer"], **entries), SAMPLES)
    ours = schedules.constant(0.1, warmup=256_000, start=0.01, warmup_shape=style)
    assert near([wd for _, wd in theirs], 0.1) == [ours(n) for n in SAMPLES]


@pytest.mark.parametrize("flag", [True, False])
def test_megatrons_two_flags_are_policies(flag):
    flags = {"use_checkpoint_opt_param_scheduler": flag, "override_opt_param_scheduler": not flag}
    left = run("megatron", without=["runs/megatron"])
    entries = left["scheduler"].to_config()
    entries = {name: value for name, value in entries.items() if name not in {"policy", "unit"}}
    ours = OptimizerParamScheduler(names()["optimizer"], **entries, **flags)
    assert ("checkpoint" if flag else "config") in repr(ours)


def test_megatrons_script_wraps_what_it_builds():
    left = run("megatron", without=["runs/megatron"])
    config = {**left["scheduler"].to_config()}
    config = {name: value for name, value in config.items() if name not in {"policy", "unit"}}
    wrapped = left["wrap"](names()["optimizer"], **config)
    wrapped.step(increment=256)
    assert (256, "samples") == (wrapped.num_steps, wrapped.unit)


def test_nemos_section_makes_the_same_bits():
    left = run("nemo-automodel", without=["checkpoints"])
    ours = left["scheduler"]
    entries = {name: value for name, value in ours.to_config().items() if name != "policy"}
    theirs = load_nemo()(names()["optimizer"], **entries)
    steps = [0, 1, 99, 100, 101, 500, 999, 1_000, 1_100]
    assert at_positions(theirs, steps) == ours_at(ours, steps)
    assert [(1e-4, 0.1)] == ours_at(ours, [0])


# torchtitan


def test_torchtitans_first_update_is_one_ahead():
    lr = run("torchtitan", without=["outputs/checkpoint"])["lr"]
    assert near([1e-5, 1e-3, 1e-3, 1e-3]) == [lr(n) for n in (0, 99, 100, 800)]
    assert 1e-4 == lr(UPDATES) == lr(UPDATES + 100) < lr(UPDATES - 1)


# OLMo-core and OLMo


@pytest.mark.parametrize(
    "theirs, written", [pytest.param(*row, id=row[0]) for row in rows("olmo", "OLMo-core")[:7]]
)
def test_olmo_cores_schedulers_are_a_schedule_one_update_ahead(theirs, written):
    kind, arguments = code(theirs).rstrip(")").split("(")
    values = {"w": 100, "d": 200, "low": 1e-6, "lr": 1e-3, "end": UPDATES}
    own = eval(f"dict({arguments})", dict(values))  # noqa: S307
    block = {"type": kind, **own, "lr": 1e-3, "max_steps": UPDATES}
    peer = schedules.from_peer("olmo_core", block)
    ours = eval(code(written), {"schedules": schedules, "Schedule": Schedule, "Phase": Phase, **values})  # noqa: S307, E501 # fmt: skip
    assert near([ours(n + 1) for n in range(UPDATES)]) == [peer(n) for n in range(UPDATES)]


def olmo(current, warmup=10_485_760_000, end=3e12):
    """Return the lr of OLMo's section on the page, by its count of tokens."""
    if current < warmup:
        return 3e-5 + (3e-4 - 3e-5) * min(current, warmup) / warmup
    if current >= end:
        return 3e-5
    progress = (current - warmup) / (end - warmup)
    return 3e-5 + (3e-4 - 3e-5) * (1 + math.cos(math.pi * progress)) / 2


def test_olmos_section_has_the_values_of_the_next_batch():
    left = run("olmo")
    ours, batch = left["olmo"], left["batch"]
    updates = [0, 1, 2_498, 2_499, 2_500, 300_000, 715_254, 715_255, 715_256, 800_000]
    assert near([olmo((n + 1) * batch) for n in updates], 3e-4) == [
        ours(n * batch) for n in updates
    ]


def test_olmos_clipping_falls_after_its_warmup():
    left = run("olmo")
    scheduler, batch = left["with_clip"], left["batch"]
    warmup = 2_097_152_000
    assert 500 * batch == warmup
    for update in (0, 498, 499, 500, 501):
        scheduler.seek(update * batch)
        is_warm = (update + 1) * batch > warmup
        assert (1.0 if is_warm else 5.0) == scheduler.extras["max_grad_norm"]


def test_olmo_cores_tokens_are_counted_with_the_batch_that_comes():
    left = run("olmo")
    lr = left["in_tokens"]
    assert near([1e-5, 1e-3, 1e-3, 0.0]) == [lr(n * 10**6) for n in (0, 99, 899, 999)]
    assert (500, 500 * 10**6) == tuple(left[name].num_steps for name in ("scheduler", "scheduler_in_tokens"))  # fmt: skip  # noqa: E501


# In the middle of a run


@pytest.fixture
def folder(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    caplog.set_level(logging.INFO, "dist_sched")
    return tmp_path


def stepped(scheduler, updates=SAVED, increment=None):
    for _ in range(updates):
        scheduler.optimizer.step()
        scheduler.step() if increment is None else scheduler.step(increment)
    return scheduler


def save(state, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


def of_torch(folder):
    (before,) = [before for heading, before, _ in TORCH if heading == "From torch's schedulers"]
    left = names("torch")
    exec(blocks("torch")[0] + before, left)  # noqa: S102
    stepped(left["scheduler"]._schedulers[0], 0)
    for _ in range(SAVED):
        left["optimizer"].step()
        left["scheduler"].step()
    state = {"optimizer": left["optimizer"].state_dict()}
    save({**state, "scheduler": left["scheduler"].state_dict()}, folder / "checkpoint.pt")
    return left["optimizer"].param_groups[0]["lr"]


def of_hf(folder):
    optimizer = names("transformers")["optimizer"]
    scheduler = stepped(get_scheduler("cosine", optimizer, 100, UPDATES))
    save(scheduler.state_dict(), folder / "out/checkpoint-500/scheduler.pt")
    return optimizer.param_groups[0]["lr"]


def of_deepspeed(folder):
    state = {"module": {}, "lr_scheduler": {"last_batch_iteration": 499}, "global_steps": 500}
    save(state, folder / "runs/deepspeed/global_step500/mp_rank_00_model_states.pt")
    (folder / "runs/deepspeed/latest").write_text("global_step500")
    return 1e-3 * (UPDATES - 499) / 900


def of_megatron(folder):
    optimizer = names()["optimizer"]
    scheduler = stepped(megatron(optimizer), increment=256)
    there = folder / "runs/megatron"
    save({"opt_param_scheduler": scheduler.state_dict()}, there / "iter_0000500/common.pt")
    (there / "iter_0000500/metadata.json").write_text("{}")
    (there / "latest_checkpointed_iteration.txt").write_text("500")
    return optimizer.param_groups[0]["lr"]


def of_nemo(folder):
    left = run("nemo-automodel", without=["checkpoints"])
    entries = left["scheduler"].to_config()
    optimizer = names()["optimizer"]
    scheduler = stepped(load_nemo()(optimizer, **entries), increment=1)
    there = folder / "checkpoints/epoch_0_step_500/optim"
    dcp.save({"sched": scheduler.state_dict()}, checkpoint_id=there, no_dist=True)
    return optimizer.param_groups[0]["lr"]


def of_torchtitan(folder):
    there = folder / "outputs/checkpoint/step-500"
    dcp.save({"lr_scheduler": {"last_epoch": 500}}, checkpoint_id=there, no_dist=True)
    return 1e-3


MAKERS = {
    "torch": of_torch,
    "transformers": of_hf,
    "deepspeed": of_deepspeed,
    "megatron": of_megatron,
    "nemo-automodel": of_nemo,
    "torchtitan": of_torchtitan,
}


@pytest.mark.parametrize("page", MAKERS)
def test_a_run_goes_on_where_it_was_and_the_log_says_so(page, folder, caplog):
    expected = MAKERS[page](folder)
    left = run(page, **({"lr": first_lr()} if page == "torch" else {}))
    scheduler = left["scheduler"]
    assert SAVED * (256 if page == "megatron" else 1) == scheduler.num_steps
    assert near([expected]) == scheduler.get_last_lr()
    (shown,) = blocks(page, "text")
    assert [] == [line for line in shown.splitlines() if line not in caplog.text.splitlines()]


def first_lr():
    return schedules.cosine(1e-3, horizon=1_000, warmup=100, start=1e-5, floor=1e-4)


def test_the_index_loads_a_checkpoint(folder):
    scheduler = ParamScheduler(names()["optimizer"], {"lr": 1e-3})
    scheduler.seek(SAVED)
    save({"scheduler": scheduler.state_dict()}, folder / "runs/old/step-500.pt")
    fresh = ParamScheduler(names()["optimizer"], {"lr": 1e-3})
    run("index", scheduler=fresh)
    assert SAVED == fresh.num_steps


def test_deepspeeds_engine_hands_its_state_to_the_adapter():
    left = run("deepspeed", without=["runs/deepspeed"])
    scheduler = ParamScheduler(names()["optimizer"], {"lr": left["lr"]})
    left["adapters"].as_lr_scheduler(scheduler).load_state_dict({"last_batch_iteration": 499})
    assert SAVED == scheduler.num_steps


def test_the_pages_have_pairs_of_blocks():
    assert [2, 1, 19] == [len(found) for found in (FUNCTIONS, IN_TRAINERS, BY_UPDATE)]
    assert 2 == len(pairs("transformers"))
