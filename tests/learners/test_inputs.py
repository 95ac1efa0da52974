import pytest
import torch

from everlearn.learners.inputs import input_moments
from everlearn.models.matrices import as_rows, trainable_matrices
from support.runs import make_bench


def moments(run, task, batch_size):
    layers = trainable_matrices(run.model.adapters)
    n_inputs = {name: as_rows(layer, layer.weight).shape[1] for layer, name in layers.items()}
    return input_moments(run, task, task.train, layers, n_inputs, batch_size)


def test_they_are_sums_over_the_inputs_of_each_layer(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run()
    run.add_labels(bench.tasks[0])
    x = bench.tasks[0].train.x
    first = next(m for m in run.model.network.modules() if isinstance(m, torch.nn.Linear))
    hidden = torch.relu(first(x)).detach()
    found = list(moments(run, bench.tasks[0], 5).values())
    torch.testing.assert_close(found[0], (x.T @ x).double(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1], (hidden.T @ hidden).double(), rtol=1e-5, atol=1e-5)
    assert len(found) == 2
    assert run.model.network.training


@pytest.mark.parametrize("kind", ["causal_lora", "causal_full", "classify"])
def test_padding_does_not_count(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run(epochs=1), upto=1)
    one, five = (moments(run, bench.tasks[0], size) for size in (1, 5))  # rows of one are never padded
    assert one.keys() == five.keys()
    for name, moment in one.items():
        torch.testing.assert_close(moment, five[name], rtol=1e-4, atol=1e-5)
    assert any(moment.any() for moment in one.values())
