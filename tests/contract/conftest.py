"""The kinds of model that every method is held to, and settings of each method that are small enough for tiny tasks."""

import pytest

from support.runs import KINDS, Bench, make_bench


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, llama, bert) -> Bench:
    """Each kind of model with two tasks."""
    return make_bench(request.param, llama, bert)


@pytest.fixture(scope="session")
def plain_bench(llama, bert) -> Bench:
    """The fastest kind."""
    return make_bench("plain", llama, bert)
