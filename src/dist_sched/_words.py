"""Names that other libraries use, and the names that this library has for the same things."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_COSINE = ("cosine",)
_CONSTANT = ("constant",)
_INVERSE_SQRT = ("inverse_sqrt", "inverse-square-root")
_RESTARTS = ("cosine_with_restarts", "dist_sched.schedules.cosine_with_restarts")
_WSD = ("wsd", "WSD", "dist_sched.schedules.wsd")
_HORIZON = ("lr_decay_steps", "horizon")
_WARMUP = ("lr_warmup_steps", "warmup")
_DECAY = ("wsd_decay_steps", "decay")
_FLOOR = ("min_lr", "floor")
_PLATEAU = ("dist_sched.Plateau",)
_KIND = ("schedule", "lr_decay_style")

_WORDS: dict[str, tuple[str, ...]] = {
    # Schedules, styles and shapes.
    "constant_with_warmup": _CONSTANT,
    "cosine_annealing": _COSINE,
    "cosine_warmup_with_min_lr": _COSINE,
    "cosine_with_min_lr": _COSINE,
    "cosineannealinglr": _COSINE,
    "cosine_with_hard_restarts": _RESTARTS,
    "cosine_with_restarts": _RESTARTS,
    "cosineannealingwarmrestarts": _RESTARTS,
    "exponential": ("dist_sched.schedules.exponential",),
    "inverse_square_root": _INVERSE_SQRT,
    "inverse_sqrt": _INVERSE_SQRT,
    "rsqrt": _INVERSE_SQRT,
    "multistep": ("dist_sched.schedules.multistep",),
    "multisteplr": ("multistep", "dist_sched.schedules.multistep"),
    "steplr": ("multistep", "dist_sched.schedules.multistep"),
    "noam": ("dist_sched.schedules.noam",),
    "onecyclelr": ("one_cycle", "dist_sched.schedules.one_cycle"),
    "polynomial": ("dist_sched.schedules.polynomial",),
    "polynomial_decay": ("polynomial", "dist_sched.schedules.polynomial"),
    "tri_stage": ("dist_sched.schedules.tri_stage",),
    "warmup_stable_decay": _WSD,
    "wsd": _WSD,
    "plateau": _PLATEAU,
    "reduce_lr_on_plateau": _PLATEAU,
    "reducelronplateau": _PLATEAU,
    "1_sqrt": ("minus_sqrt", *_WSD),
    "sqrt": ("minus_sqrt",),
    "geometric": ("exponential",),
    "1/x": ("inverse",),
    "quadratic": ("minus_power",),
    "square": ("minus_power",),
    "exp": ("exponential_to_zero", "dist_sched.schedules.exponential"),
    "half_sine": ("sine",),
    "sin": ("sine",),
    "logarithmic": ("log",),
    "reflected_exponential": ("rex",),
    "rexlr": ("rex",),
    "powerlr": ("power", "dist_sched.schedules.power"),
    "power_scheduler": ("power", "dist_sched.schedules.power"),
    "piecewise_constant": ("piecewise", "dist_sched.schedules.piecewise"),
    "piecewise_linear": ("piecewise", "dist_sched.schedules.piecewise"),
    # Arguments and entries.
    "learning_rate": ("max_lr", "peak", "lr"),
    "peak_lr": ("max_lr", "peak"),
    "max_lr": ("peak",),
    "init_lr": ("start",),
    "min_lr": ("floor", "min_value"),
    "eta_min": _FLOOR,
    "lr_end": _FLOOR,
    "min_lr_factor": _FLOOR,
    "min_lr_rate": _FLOOR,
    "min_lr_ratio": _FLOOR,
    "lr_scheduler": _KIND,
    "lr_scheduler_type": _KIND,
    "lr_decay_style": ("schedule",),
    "lr_wsd_decay_style": ("decay_shape",),
    "b": ("exponent",),
    "warmup_style": ("warmup_shape",),
    "warmup_type": ("warmup_shape",),
    "lr_warmup_style": ("warmup_shape",),
    "decay_type": ("lr_wsd_decay_style", "decay_shape"),
    "lr_decay_iters": _HORIZON,
    "lr_decay_samples": _HORIZON,
    "lr_decay_steps": ("horizon",),
    "max_steps": _HORIZON,
    "num_training_steps": _HORIZON,
    "t_max": _HORIZON,
    "total_iters": _HORIZON,
    "total_steps": _HORIZON,
    "train_steps": _HORIZON,
    "lr_warmup_fraction": _WARMUP,
    "lr_warmup_iters": _WARMUP,
    "lr_warmup_samples": _WARMUP,
    "lr_warmup_steps": ("warmup",),
    "num_warmup_steps": _WARMUP,
    "warmup_iters": _WARMUP,
    "warmup_ratio": _WARMUP,
    "warmup_steps": _WARMUP,
    "decay_ratio": _DECAY,
    "lr_wsd_decay_iters": _DECAY,
    "lr_wsd_decay_samples": _DECAY,
    "num_decay_steps": _DECAY,
    "wsd_decay_steps": ("decay",),
    "num_cycles": ("cycles",),
    "start_weight_decay": ("start_wd",),
    "end_weight_decay": ("end_wd",),
    "weight_decay_incr_style": ("wd_incr_style",),
    "wd": ("weight_decay",),
    "lr_mult": ("lr",),
    "wd_mult": ("weight_decay",),
}
"""Our names for another library's word, the most likely first. Words are in lower case with
underscores. A name with a dot is suggested only if no other name fits the place of the word."""

_SHARE = ", which is a length: multiply that fraction by the horizon"
_NOTES = {
    "decay_ratio": _SHARE,
    "lr_warmup_fraction": _SHARE,
    "warmup_ratio": _SHARE,
    "min_lr_factor": ", which is a value: multiply that fraction by the peak",
    "min_lr_rate": ", which is a value: multiply that fraction by the peak",
    "min_lr_ratio": ", which is a value: multiply that fraction by the peak",
    "quadratic": " with power 2",
    "square": " with power 2",
    "piecewise_constant": " with shape 'step'",
    "lr_mult": ", which a number in groups= multiplies",
    "wd_mult": ", which a number in groups= multiplies",
}
"""How the meaning of our name differs from the word's."""


def normal(word: str) -> str:
    """Return a word in lower case and with underscores.

    Examples:
        >>> normal("Inverse-Square root")
        'inverse_square_root'
    """
    return word.strip().lower().replace("-", "_").replace(" ", "_")


def translated(word: str, known: Iterable[str]) -> str:
    """Return the end of an error that suggests our name for another library's word, or "".

    Examples:
        >>> translated("num_warmup_steps", ["peak", "warmup"])
        "; did you mean 'warmup'?"
    """
    key, known = normal(word), set(known)
    for name in _WORDS.get(key, ()):
        if name in known:
            return f"; did you mean {name!r}{_NOTES.get(key, '')}?"
        if "." in name:
            return f"; see {name}"
    return ""
