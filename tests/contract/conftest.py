"""The kinds of model that every method is held to, and settings of each method that are small enough for tiny tasks."""

import pytest

from everlearn import registry
from support.runs import KINDS, Bench, make_bench, suits


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out methods on models that they are unsuited for; `test_class.py` checks that these are refused."""
    left_out = []
    for item in items:
        params = item.callspec.params if "callspec" in vars(item) else {}
        name, kind = params.get("name"), params.get("bench")
        if isinstance(name, str) and kind and not suits(registry.find("strategy", name), kind):
            left_out.append(item)
    if left_out:
        items[:] = [item for item in items if item not in set(left_out)]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(params=KINDS)
def bench(request: pytest.FixtureRequest, llama, bert) -> Bench:
    """Each kind of model with two tasks."""
    return make_bench(request.param, llama, bert)
