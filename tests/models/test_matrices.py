import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from everlearn.models.adapters import Adapters
from everlearn.models.matrices import as_rows, class_parameters, separate_heads, trainable_matrices
from support.runs import make_bench


class Tied(nn.Module):
    """A network with an embedding that is also its output layer."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear, self.turned = nn.Embedding(7, 4), nn.Linear(4, 3), Conv1D(4, 3)
        self.norm, self.output = nn.LayerNorm(4), nn.Linear(4, 7, bias=False)
        self.output.weight = self.embedding.weight


def test_it_finds_linear_layers_of_both_layouts_but_no_embedding():
    adapters = Adapters(Tied())
    assert trainable_matrices(adapters) == {}
    adapters.do("full")
    network = adapters.network
    assert trainable_matrices(adapters) == {network.linear: "linear.weight", network.turned: "turned.weight"}
    assert trainable_matrices(adapters, {id(network.linear.weight)}) == {network.turned: "turned.weight"}
    adapters.do("freeze", parameters=["turned.weight"])
    assert trainable_matrices(adapters) == {network.linear: "linear.weight"}


def test_rows_are_outputs_in_both_layouts():
    network, x = Tied(), torch.randn(5, 3)
    turned = as_rows(network.turned, network.turned.weight)
    torch.testing.assert_close(network.turned(x), x @ turned.T + network.turned.bias)
    assert as_rows(network.linear, network.linear.weight) is network.linear.weight
    assert as_rows(None, network.linear.bias) is network.linear.bias


def test_both_matrices_of_a_lora_are_found(llama, bert):
    adapters = make_bench("causal_lora", llama, bert).run().model.adapters
    found = trainable_matrices(adapters)
    assert sorted(found.values()) == sorted(adapters.trainable())


@pytest.mark.parametrize("kind", ["causal_lora", "causal_full", "classify", "plain"])
@pytest.mark.parametrize("head", ["task", "shared"])
def test_parameters_of_classes_and_of_single_tasks(kind, head, llama, bert):
    bench = make_bench(kind, llama, bert, head=head)
    run = bench.run()
    for task in bench.tasks:
        run.add_labels(task)
    adapters = run.model.adapters
    named = {name for name, p in adapters.network.named_parameters() if id(p) in class_parameters(adapters)}
    apart = separate_heads(adapters)
    if kind == "classify":
        assert len(named) == 4
        assert all("blocks" in name for name in named)
    else:
        assert named == ({"3.weight", "3.bias"} if kind == "plain" else set())
    assert apart == (class_parameters(adapters) if (kind, head) == ("classify", "task") else set())
