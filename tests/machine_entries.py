"""What Megatron's own class makes of entries, and what late changes make of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import pytest

from dist_sched import ConfigError, ReconcileError
from machine_model import KEYS, Refused

STYLES = ["constant", "linear", "cosine", "inverse-square-root", "WSD"]
TAILS = {"linear": "linear", "cosine": "cosine", "halving": "exponential"}
TAILS["minus_sqrt"] = "minus_sqrt"
WSD_ENTRIES = {"wsd_decay_steps", "lr_wsd_decay_style"}


@cache
def oracle(entries):
    """Return an object of Megatron's class, which has no groups."""
    from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler as Megatrons

    class Nothing:
        param_groups = ()

    return Megatrons(Nothing(), **dict(entries))


@dataclass(frozen=True)
class Entries:
    """Megatron's entries, and what late changes have made of the bounds of groups."""

    entries: dict[str, Any]
    share: float | None = None
    """The lower bound of lr as a part of the upper one."""
    factors: dict[str, float] = field(default_factory=lambda: {"lr": 1.0, "weight_decay": 1.0})

    def __deepcopy__(self, memo):
        return self

    def _repr_pretty_(self, printer, _):
        printer.text(f"Entries({self.entries!r})")

    def parts(self):
        return self.entries

    def keys(self):
        """Return the ten keys of a state, but for the position."""
        left = {"init_lr", *WSD_ENTRIES}
        return {key: value for key, value in self.entries.items() if key not in left}

    def fields_of(self, fields):
        return fields

    def is_legal(self):
        one = self.entries
        is_wsd = one["lr_decay_style"] == "WSD"
        return (
            0 <= one["min_lr"] <= one["max_lr"]
            and 0 <= one["init_lr"] <= one["max_lr"]
            and one["lr_warmup_steps"] < one["lr_decay_steps"]
            and one["start_wd"] <= one["end_wd"]
            and not (one["wd_incr_style"] == "constant" and one["start_wd"] != one["end_wd"])
            and not (is_wsd and None in (one["wsd_decay_steps"], one["lr_wsd_decay_style"]))
            and not (is_wsd and one["wsd_decay_steps"] > one["lr_decay_steps"])
        )

    def check(self, groups, declared):
        """Raise if the names of groups do not fit. These entries have none."""

    def reference(self, key, groups):
        return next((one.own[key] for one in groups if one.own[key]), None)

    def takes_part(self, key, group):
        return not group.has_override(key)

    def has_ratio(self, key, group):  # noqa: ARG002 - as Spec's
        return True

    def between(self, key, position, upper, lower):
        """Return Megatron's value between two bounds."""
        megatrons = oracle(tuple(self.entries.items()))
        megatrons.num_steps = position
        if key == "lr":
            value = megatrons.get_lr({"max_lr": upper, "min_lr": lower})
            return value if value >= 0 else upper  # a warmup down to 0, as test_differences says
        if self.entries["wd_incr_style"] == "constant" and upper != lower:
            raise Refused(ConfigError)
        if self.entries["wd_incr_steps"] == 0:
            return upper
        return megatrons.get_wd({"start_wd": lower, "end_wd": upper})

    def base_value(self, key, position):
        upper, lower, _ = KEYS[key]
        return self.between(key, position, self.entries[upper], self.entries[lower])

    def base(self, key, position, group):  # noqa: ARG002 - as Spec's
        return self.base_value(key, position)

    def value(self, key, position, group, ratio):
        (upper, lower, multiplier), overrides = KEYS[key], group.overrides
        if not overrides.keys() & {upper, lower}:
            return self.base_value(key, position) * overrides.get(multiplier, ratio)
        high, low = (
            overrides[one] * self.factors[key] if one in overrides else self.entries[one]
            for one in (upper, lower)
        )
        if key == "lr" and self.share is not None:
            low = high * self.share
        return self.between(key, position, high, low) * overrides.get(multiplier, 1.0)

    # Loads and late changes

    def decide(self, parts, history, policy):
        """Return the config and the late changes after a load."""
        used, refused, left, kept = {}, set(), set(), set()
        for name, mine in self.entries.items():
            word = policy.get(name, policy["*"])
            theirs = parts.get(name, mine) if name in parts else mine
            used[name] = mine if word in {"config", "strict"} else theirs
            curve = "weight_decay" if "wd_" in name or name.endswith("_wd") else "lr"
            kept |= set() if word == "config" else {curve}
            left |= {curve} if theirs != mine and used[name] != theirs else set()
            refused |= {name} if theirs != mine and word == "strict" else set()
        config = self if used == self.entries else Entries(used)
        if not config.is_legal():
            raise Refused(ReconcileError)
        if refused - (set() if used["lr_decay_style"] == "WSD" else WSD_ENTRIES):
            raise Refused(ReconcileError)
        if "history" in policy:
            kept, left = (
                ({"lr", "weight_decay"}, set()) if policy["history"] != "config" else (kept, kept)
            )
        history = tuple(one for one in history if dict(one[2])["field"] in kept - left)
        try:
            config.after(history)
        except Refused as error:
            raise Refused(ReconcileError) from error
        return config, history

    def after(self, history):
        """Return the entries after late changes, or raise what a change raises."""
        made = self.__dict__.setdefault("_made", {})
        if history not in made:
            made[history] = self._after(history)
        return made[history]

    def _after(self, history):
        found = self
        for position, operation, arguments in history:
            found = found.changed(position, operation, dict(arguments))
        return found

    def changed(self, position, operation, arguments):
        entries, factors, share = dict(self.entries), dict(self.factors), self.share
        if operation == "scale":
            names = {"lr": ("init_lr", "max_lr", "min_lr"), "weight_decay": ("start_wd", "end_wd")}
            for name in names[arguments["field"]]:
                entries[name] *= arguments["factor"]
            factors[arguments["field"]] *= arguments["factor"]
        elif arguments["field"] != "lr" or operation == "rewarm":
            raise Refused(ConfigError)
        elif operation == "extend":
            if arguments["horizon"] <= entries["lr_decay_steps"]:
                raise Refused(ConfigError)
            if "keep" in arguments and not self._is_stable(position):
                raise Refused(ConfigError)
            entries["lr_decay_steps"] = arguments["horizon"]
        else:
            if arguments["shape"] not in TAILS or not self._is_at_peak(position):
                raise Refused(ConfigError)
            end = arguments["end"]
            if end is not None:
                share = end / entries["max_lr"] if entries["max_lr"] else share
            entries |= {
                "lr_decay_style": "WSD",
                "lr_decay_steps": position + arguments["steps"],
                "wsd_decay_steps": arguments["steps"],
                "lr_wsd_decay_style": TAILS[arguments["shape"]],
                "min_lr": entries["min_lr"] if end is None else end,
            }
        found = Entries(entries, share, factors)
        if not found.is_legal():
            raise Refused(ConfigError)
        return found

    def _tail(self):
        return self.entries["lr_decay_steps"] - (self.entries["wsd_decay_steps"] or 0)

    def _is_at_peak(self, position):
        style = self.entries["lr_decay_style"]
        return position >= self.entries["lr_warmup_steps"] and (
            style == "constant" or (style == "WSD" and position <= self._tail())
        )

    def _is_stable(self, position):
        style = self.entries["lr_decay_style"]
        is_slow = style == "inverse-square-root" and position <= self.entries["lr_decay_steps"]
        is_before = position <= self.entries["lr_warmup_steps"]
        return (
            is_before
            or is_slow
            or style == "constant"
            or (style == "WSD" and position <= self._tail())
        )

    def check_change(self, change):
        """Raise where a new cooldown would rise."""
        position, operation, arguments = change
        end = dict(arguments).get("end") if operation == "cooldown" else None
        if end is not None and end > self.base_value("lr", position) * (1 + 1e-6):
            raise Refused(ConfigError)

    def jumps(self, after, position):
        return any(
            after.base_value(key, position)
            != pytest.approx(self.base_value(key, position), rel=1e-9, abs=1e-300)
            for key in KEYS
        )
