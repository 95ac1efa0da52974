import pytest

from everlearn.errors import ConfigError
from everlearn.strategies.der import DER
from support.runs import make_bench


def test_it_adds_one_draw_of_the_memory_from_the_second_task_on(llama, bert):
    bench, sizes = make_bench("plain", llama, bert), []
    run = bench.run([{"name": "der", "ratio": 0.5}], epochs=1)
    forward = run.model.objective.forward

    def counting(network, batch, past=()):
        if network.training:
            sizes.append(len(batch["y"]))
        return forward(network, batch, past)

    run.model.objective.forward = counting
    bench.learn(run)
    assert sizes == [4] * 6 + [6] * 6


@pytest.mark.parametrize("name", ["capacity", "alpha", "ratio", "top_k", "batch_size"])
def test_values_out_of_range(name):
    with pytest.raises(ConfigError, match=f"der.{name}"):
        DER(**{name: -1})
