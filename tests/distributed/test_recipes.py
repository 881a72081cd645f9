"""Every recipe of `examples/recipes`, saved on two ranks, goes on on one, two and three."""

from __future__ import annotations

import pytest

from recipe_helpers import NAMES

pytestmark = pytest.mark.distributed

PROGRAM = "resume_recipes.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes")


@pytest.fixture(scope="module")
def uninterrupted(torchrun, folder):
    first, second = torchrun(PROGRAM, 2, "save", folder, timeout=90)
    assert first == second
    return first


@pytest.fixture(scope="module", params=[1, 2, 3], ids="{} ranks".format)
def resumed(request, torchrun, folder, uninterrupted):  # noqa: ARG001 - the saves that it resumes
    return torchrun(PROGRAM, request.param, "load", folder, timeout=110)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_goes_on_from_every_save_with_the_same_bits_on_every_rank(
    resumed, uninterrupted, name
):
    whole = uninterrupted[name]
    assert len({str(values) for values in whole}) >= 2
    for result in resumed:
        assert [whole[begin:] for begin in range(len(whole))] == result[name]
