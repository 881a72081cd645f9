"""scripts/compare_megatron.py finds what a release of Megatron-LM does otherwise than we."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SCRIPT = HERE.parents[1] / "scripts/compare_megatron.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("compare_megatron", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["compare_megatron"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["compare_megatron"]


@pytest.fixture(scope="module")
def found(script, megatron):
    return script.differences(megatron)


def test_every_difference_to_the_installed_release_is_known(found):
    assert found
    assert [] == [each for each in found if each.test is None]


def test_every_known_difference_has_its_test(found):
    text = (HERE / "test_differences.py").read_text()
    assert {each.test for each in found} <= set(re.findall(r"def test_(\w+)", text))


def test_a_value_of_another_release_that_differs_is_new(script, megatron):
    class Other(megatron):
        def get_wd(self, param_group=None):
            return super().get_wd(param_group) * (1 + 1e-12)

    first = next(each for each in script.values(Other) if each.test is None)
    assert "weight_decay at 0 of {} under" in first.case


def test_an_argument_that_another_release_adds_is_new(script, megatron):
    class Other(megatron):
        def __init__(self, *arguments, decay_groups=None, **keywords):
            super().__init__(*arguments, **keywords)
            self.decay_groups = decay_groups

    names = [each.case for each in script.signatures(Other) if each.test is None]
    assert "attribute decay_groups" in names


def test_the_report_names_new_differences_first_to_last(script):
    known = script.Difference("a", "1", "2", "some_test")
    new = script.Difference("b", "3", "4", None)
    lines = script.report("1.0", [known, new]).splitlines()
    assert "megatron-core 1.0: 2 differences, 1 new" == lines[0]
    assert {"| some_test | 1 | a | 1 | 2 |", "| b | 3 | 4 |"} <= set(lines)
