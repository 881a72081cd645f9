"""What the tests of peers' words share."""

from __future__ import annotations

CLOSE = 1e-12
"""Of the peak: how near to a peer a schedule is at every position."""


def differing(schedule, peer, last):
    """Return the positions up to the last at which a schedule and a peer's formula differ."""
    theirs = [peer(position) for position in range(last + 1)]
    peak = max(theirs)
    return [
        position
        for position, value in enumerate(theirs)
        if not abs(schedule(position) - value) <= CLOSE * peak
    ]
