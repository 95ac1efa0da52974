import pytest
import torch
from torch.nn import functional as F

from everlearn.memory.rows import size
from everlearn.strategies.er_ace import ERACE, classes_of, log_mass_without
from everlearn.strategy import Strategy
from everlearn.types import Mixture, Outputs, Step
from support.runs import make_bench
from support.tasks import prompt_task, regression_task


def test_added_to_a_cross_entropy_it_makes_that_over_the_other_classes():
    logits = 3 * torch.randn(6, 8, generator=torch.Generator().manual_seed(0))
    targets, hidden = torch.tensor([0, 2, 7, 2, 0, 7]), torch.tensor([1, 4, 6])
    shown = [c for c in range(8) if c not in hidden]
    found = F.cross_entropy(logits, targets, reduction="none") + log_mass_without(logits, hidden)
    places = torch.tensor([shown.index(t) for t in targets])
    torch.testing.assert_close(found, F.cross_entropy(logits[:, shown], places, reduction="none"))


def test_new_rows_do_not_push_hidden_classes():
    logits = torch.randn(4, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    hidden = torch.tensor([0, 3])
    loss = F.cross_entropy(logits, torch.tensor([1, 2, 4, 1])) + log_mass_without(logits, hidden).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    torch.testing.assert_close(gradient[:, hidden], torch.zeros(4, 2), rtol=0, atol=1e-7)


def test_a_nearly_certain_hidden_class_leaves_a_finite_loss():
    logits = torch.tensor([[60.0, 0.0, 0.0]], requires_grad=True)
    found = log_mass_without(logits, torch.tensor([0]))
    found.backward()
    assert found.item() == pytest.approx(-60 + torch.tensor(2.0).log().item(), abs=1e-4)
    assert torch.isfinite(logits.grad).all()


def second_task(bench, **options):
    """Return a run that stands before the first step of its second task, and the strategy."""
    run = bench.run([{"name": "er_ace", **options}], epochs=1)
    bench.learn(run, upto=1)
    run.position, run.current = 1, bench.tasks[1].name
    run.add_labels(bench.tasks[1])
    strategy = run.strategies[0]
    strategy.begin_task(run, bench.tasks[1])
    mixture = strategy.train_data(Mixture.of(bench.tasks[1]), run)
    return run, strategy, mixture


@pytest.mark.parametrize("kind", ["classify", "plain"])
def test_with_a_shared_head_the_total_is_the_asymmetric_loss(llama, bert, kind):
    bench = make_bench(kind, llama, bert, head="shared")
    run, strategy, mixture = second_task(bench)
    assert len(mixture.groups) == 2
    n_old = len(bench.tasks[0].labels)
    n_classes = n_old + len(bench.tasks[1].labels)
    logits = torch.randn(5, n_classes, generator=torch.Generator().manual_seed(1))
    targets = torch.tensor([n_old, n_old + 1, n_old, 0, 1])
    step = Step(
        run,
        bench.tasks[1],
        {},
        rows=[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)],
        outputs=Outputs(logits, targets, torch.arange(5)),
    )
    total = F.cross_entropy(logits, targets) + strategy.penalty(step)
    new = F.cross_entropy(logits[:3, n_old:], targets[:3] - n_old, reduction="sum")
    old = F.cross_entropy(logits[3:], targets[3:], reduction="sum")
    torch.testing.assert_close(total, (new + old) / 5)
    step.weights = torch.tensor([0.5, 0.5, 0.5, 1.0, 2.0])
    total = (step.weights * F.cross_entropy(logits, targets, reduction="none")).mean() + strategy.penalty(step)
    second = F.cross_entropy(logits[4:], targets[4:])
    torch.testing.assert_close(total, (0.5 * new + old + second) / 5)


def test_of_a_language_model_only_tokens_of_earlier_answers_are_hidden(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    run, strategy, _ = second_task(bench)
    ids = [
        {i for row in task.train for i in run.model.tokenizer(row["completion"], add_special_tokens=False)["input_ids"]}
        | {run.model.tokenizer.eos_token_id}
        for task in bench.tasks
    ]
    assert set(strategy.seen_.tolist()) == ids[0]
    assert set(strategy.own_.tolist()) == ids[1]
    assert classes_of(run, prompt_task(0, n_train=2)).tolist() == sorted(
        {run.model.tokenizer.eos_token_id, *run.model.tokenizer("12", add_special_tokens=False)["input_ids"]}
    )


@pytest.mark.parametrize("kind", ["classify", "plain"])
def test_with_a_head_for_each_task_it_is_replay(llama, bert, kind):
    bench = make_bench(kind, llama, bert)
    run, strategy, mixture = second_task(bench)
    assert len(mixture.groups) == 2
    assert len(strategy.seen_) == len(strategy.own_) == 0
    assert strategy.penalty(Step(run, bench.tasks[1], {})) is None


def test_real_targets_have_no_classes(llama, bert):
    run = make_bench("plain", llama, bert).run()
    assert len(classes_of(run, regression_task(0))) == 0


def test_in_the_first_task_nothing_is_hidden_and_the_memory_is_bounded(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    penalties = []

    class Watching(Strategy):
        def penalty(self, step):
            penalties.append(ace.penalty(step))

    ace = ERACE(capacity=10)
    run = bench.learn(bench.run([ace, Watching()], epochs=1))
    assert penalties[:6] == [None] * 6
    assert all(penalty.item() < 0 for penalty in penalties[6:])
    assert size(run.strategies[0].memory_) == 10
    assert ace.seen_.tolist() == [0, 1, 2, 3]
