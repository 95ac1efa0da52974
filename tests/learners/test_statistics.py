import pytest
import torch
from torch import nn

from everlearn.learners.statistics import moving_norms, renew_statistics, statistics_of
from support.runs import Bench, make_bench, weights
from support.tasks import tensor_task


@pytest.fixture
def run(llama, bert):
    bench = make_bench("plain", llama, bert)
    torch.manual_seed(0)
    without = nn.BatchNorm1d(8, track_running_stats=False)
    network = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), without, nn.Linear(8, 4))
    return Bench("plain", network, bench.tasks).run()


def test_they_are_the_means_over_whole_batches(run):
    task, network = tensor_task(0, n_train=23), run.model.network.train()
    flags = [module.training for module in network.modules()]
    state = torch.get_rng_state()
    renew_statistics(run, task, 5)  # four batches; three rows are left out
    norm = network[1]
    with torch.no_grad():
        hidden = network[0](task.train.x)
    assert not torch.allclose(norm.running_mean, torch.zeros(8), atol=0.05)
    assert (norm.running_mean - hidden.mean(0)).abs().max() < 0.2
    assert (norm.running_var / hidden.var(0) - 1).abs().max() < 0.6
    assert int(norm.num_batches_tracked) == 4
    assert (norm.momentum, norm.training) == (0.1, True)
    assert [module.training for module in network.modules()] == flags
    assert torch.equal(torch.get_rng_state(), state)
    once = statistics_of(run.model.adapters)["buffer:1.running_var"].clone()
    renew_statistics(run, task, 5)
    assert torch.equal(norm.running_var, once)


def test_one_batch_of_all_rows_gives_their_mean_and_variance(run):
    task = tensor_task(0)
    renew_statistics(run, task, 100)
    hidden = run.model.network[0](task.train.x)
    torch.testing.assert_close(run.model.network[1].running_mean, hidden.mean(0))
    torch.testing.assert_close(run.model.network[1].running_var, hidden.var(0))


def test_norms_that_are_held_and_tasks_of_one_row_are_left_alone(run):
    assert list(moving_norms(run.model.adapters)) == ["1"]
    before = weights(run)
    renew_statistics(run, tensor_task(0, n_train=1), 5)
    run.model.adapters.do("hold_statistics")
    assert moving_norms(run.model.adapters) == statistics_of(run.model.adapters) == {}
    renew_statistics(run, tensor_task(0), 5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(run).items())
