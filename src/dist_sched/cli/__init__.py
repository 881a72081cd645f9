"""The command line: one module per command."""

from __future__ import annotations

import sys


def main() -> None:
    """Run `dist-sched`."""
    try:
        from dist_sched.cli.application import run

        status = run()
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.exit("dist-sched: error: this needs the extra 'cli': pip install 'dist-sched[cli]'")
    except KeyboardInterrupt:  # during the import
        sys.exit(130)
    sys.exit(status)
