"""Run `dist-sched` as `python -m dist_sched.cli`."""

from dist_sched.cli import main

main()
