import torch

from everlearn.learners.gradients import reference_gradients, to_device
from everlearn.learners.loader import row_batches
from everlearn.models.objectives import mean_loss
from support.runs import make_bench
from support.tasks import prompt_task


def test_the_gradient_is_of_the_mean_over_all_targets_however_batched(llama, bert):
    run, task = make_bench("causal_full", llama, bert).run(), prompt_task(0, n_train=7)
    parameters = list(run.model.adapters.trainable().values())

    def found(size):
        return reference_gradients(
            run, parameters, [b for _, b in row_batches(run.model.objective, task.train, task, size)]
        )

    (batch,) = [b for _, b in row_batches(run.model.objective, task.train, task, 7)]
    loss = mean_loss(run.model.objective.forward(run.model.network, batch))
    wanted = torch.autograd.grad(loss, parameters)
    for size in (7, 3, 1):
        for gradient, reference in zip(found(size), wanted, strict=True):
            torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-6)


def test_present_gradients_stay(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run()
    run.add_labels(bench.tasks[0])
    parameters = list(run.model.adapters.trainable().values())
    kept = [torch.ones_like(p) for p in parameters]
    for p, gradient in zip(parameters, kept, strict=True):
        p.grad = gradient
    batches = [b for _, b in row_batches(run.model.objective, bench.tasks[0].train, bench.tasks[0], 8)]
    gradients = reference_gradients(run, parameters, [*batches, {}])
    assert all(p.grad is gradient for p, gradient in zip(parameters, kept, strict=True))
    assert all(torch.equal(gradient, torch.ones_like(gradient)) for gradient in kept)
    assert any(g is not None and g.abs().sum() > 0 for g in gradients)


def test_rows_that_reach_nothing_trainable_have_no_gradient(llama, bert):
    bench = make_bench("plain", llama, bert)
    run = bench.run()
    run.add_labels(bench.tasks[0])
    parameters = list(run.model.adapters.trainable().values())
    batches = [b for _, b in row_batches(run.model.objective, bench.tasks[0].train, bench.tasks[0], 8)]
    run.model.network.requires_grad_(False)
    assert reference_gradients(run, parameters, batches) == [None] * len(parameters)


def test_on_the_cpu_moving_a_batch_is_free():
    batch = {"x": torch.ones(1)}
    assert to_device(batch, torch.device("cpu")) is batch
