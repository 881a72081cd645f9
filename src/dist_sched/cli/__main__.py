"""`python -m dist_sched.cli` is `dist-sched`."""

from dist_sched.cli import main

main()
