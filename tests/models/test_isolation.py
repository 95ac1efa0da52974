import pytest
import torch
from torch import nn

from everlearn.errors import ModelError
from everlearn.models.adapters import Adapters
from everlearn.models.isolation import (
    Held,
    freeze_shared,
    has_own_rows,
    linear_chain,
    output_layer,
    own_head,
    own_rows,
)
from support.runs import make_bench


def test_held_entries_survive_momentum_and_weight_decay_bit_for_bit():
    torch.manual_seed(0)
    weights = {"w": nn.Parameter(torch.randn(4, 5)), "b": nn.Parameter(torch.randn(4))}
    masks = {"w": torch.rand(4, 5) > 0.5, "b": torch.zeros(4, dtype=torch.bool)}
    held, before = Held.of(weights, masks), weights["w"].detach().clone()
    assert list(held.masks) == ["w"]
    optimizer = torch.optim.AdamW(weights.values(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        for p in weights.values():
            p.grad = torch.randn_like(p)
        held.drop_gradients(weights)
        assert torch.all(weights["w"].grad[masks["w"]] == 0)
        optimizer.step()
        assert not torch.equal(weights["w"][masks["w"]], before[masks["w"]])
        held.put_back(weights)
        assert torch.equal(weights["w"][masks["w"]], before[masks["w"]])
    assert torch.all(weights["w"][~masks["w"]] != before[~masks["w"]])
    weights["w"].grad = None
    held.drop_gradients(weights)


def test_only_what_is_kept_and_the_task_s_own_head_learn(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.run()
    adapters = run.model.adapters
    for task in bench.tasks:
        run.add_labels(task)
    kept = [name for name in adapters.trainable() if "layer.0" in name]
    for task in (*bench.tasks, bench.tasks[0]):
        freeze_shared(adapters, task, kept)
        assert set(adapters.trainable()) == {*kept, *own_head(adapters, task)}
        assert len(own_head(adapters, task)) == 2
    assert own_head(make_bench("plain", llama, bert).run().model.adapters, bench.tasks[0]) == []


def test_norms_use_their_statistics_in_training_and_keep_them():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    adapters = Adapters(network)
    adapters.do("full")
    network(torch.randn(8, 3))
    before, x = {name: b.clone() for name, b in network.named_buffers()}, torch.randn(8, 3)
    freeze_shared(adapters, make_task(), kept=["0.weight"])
    freeze_shared(adapters, make_task(), kept=["0.weight"])
    assert [operation for operation, _ in adapters.log].count("hold_statistics") == 1
    training = network.train()(x)
    assert torch.equal(training, network.eval()(x))
    assert all(torch.equal(before[name], b) for name, b in network.named_buffers())


def make_task(number=0):
    return make_bench("plain", None, None).tasks[number]


def test_rows_are_a_task_s_own_where_no_other_names_their_class(llama, bert):
    bench = make_bench("plain", llama, bert)
    first, second = bench.tasks
    run = bench.run()
    adapters = run.model.adapters
    for task in bench.tasks:
        run.add_labels(task)
    assert own_rows(adapters, first, []).tolist() == [True, True, False, False]
    assert own_rows(adapters, second, [first.name, second.name]).tolist() == [False, False, True, True]
    assert has_own_rows(adapters, first, bench.tasks)
    adapters.task_labels[second.name] = (first.labels[0], *second.labels)
    assert own_rows(adapters, first, [second.name]).tolist() == [False, True, False, False]
    assert not has_own_rows(make_bench("classify", llama, bert).run().model.adapters, first, bench.tasks)


def test_the_output_layer_is_the_last_linear_map():
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    assert output_layer(Adapters(network)) is network[2]
    with pytest.raises(ModelError, match="no linear output layer"):
        output_layer(Adapters(nn.ReLU()))


def test_a_chain_is_linear_maps_with_nothing_that_learns_between():
    chain = nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.Dropout(), nn.Linear(4, 2))
    assert linear_chain(chain) == [chain[1], chain[3]]
    for other in (
        nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2)),
        nn.Sequential(nn.Linear(3, 4), nn.MaxPool1d(2), nn.Linear(2, 2)),
        nn.Sequential(nn.ReLU()),
        nn.Embedding(3, 4),
    ):
        with pytest.raises(ModelError, match="is no chain of linear maps"):
            linear_chain(other)
