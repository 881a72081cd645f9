"""torchft's optimizer wrapper under its real manager."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.frameworks, pytest.mark.timeout(300)]


def test_the_example_with_failed_updates_is_exact_in_one_go_and_in_two_processes(check_example):
    check_example("torchft_replica.py")
