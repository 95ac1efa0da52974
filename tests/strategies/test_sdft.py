from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from everlearn.errors import ConfigError
from everlearn.evaluation.generate import draw_answers
from everlearn.strategies.sdft import SDFT, answered, mean_per_row, shown
from everlearn.strategy import Strategy
from everlearn.types import Mixture, Step
from support.runs import make_bench, weights
from support.tasks import text_task

TEMPLATE = "{completion};{prompt}"


def test_a_demonstration_is_shown_in_the_prompt_or_in_the_last_message_before_the_answer():
    row = {"prompt": "2+3=", "completion": "{5}"}
    assert shown(row, "{prompt}{completion} {prompt}") == {**row, "prompt": "2+3={5} 2+3="}
    messages = [{"role": r, "content": c} for r, c in (("system", "s"), ("user", "2+3"), ("assistant", "5"))]
    asked = {"role": "user", "content": "2+3? 5"}
    assert shown({"messages": messages}, "{prompt}? {completion}")["messages"] == [messages[0], asked, messages[2]]


def test_a_batch_of_answers_has_their_tokens_as_targets(llama, bert):
    objective = make_bench("causal_lora", llama, bert).run().model.objective
    batch = answered(objective, [[5, 6, 7], [8]], [[9], [10, 11]])
    assert batch["input_ids"].tolist() == [[5, 6, 7, 9], [8, 10, 11, 0]]
    assert batch["labels"].tolist() == [[-100, -100, -100, 9], [-100, 10, 11, -100]]


def test_rows_are_averaged_over_their_own_values():
    found = mean_per_row(torch.tensor([1.0, 3.0, 5.0]), torch.tensor([0, 0, 1]), 2)
    assert found.tolist() == [2.0, 5.0]


def first_step(bench, **options):
    """Return a run before its first step, the strategy, and a step whose first two rows of four count as the task's."""
    run = bench.run([{"name": "sdft", "template": TEMPLATE, **options}])
    task, (strategy,) = bench.tasks[0], run.strategies
    run.current = task.name
    strategy.begin_task(run, task)
    strategy.train_data(Mixture.of(task), run)
    objective = run.model.objective
    features = objective.encode(task.train, task)
    batch = objective.collate(objective.take(features, [4, 11, 2, 3]))
    step = Step(run, task, run.model.adapters.trainable(), batch=batch, rows=[(0, 4), (0, 11), (1, 0), (1, 1)])
    step.outputs = objective.forward(run.model.network, batch)
    return run, strategy, step


def shift(run, size=0.1):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in run.model.adapters.trainable().values():
            p.add_(size * torch.randn(p.shape, generator=generator))


def written_out(run, step, teacher, drawn, divergence):
    """Return the mean over tokens of each row's divergence, one token at a time. `teacher`: its weights."""
    network, objective, task = run.model.network, run.model.objective, step.task
    present, per_row = weights(run), []
    for (_, row), answer in zip(step.rows[: step.n_new], drawn, strict=True):
        text, per_token = task.train[row], []
        prompt = objective.prompt_ids([text["prompt"]], 4)[0]
        with_answer = objective.prompt_ids([f"{text['completion']};{text['prompt']}"], 4)[0]
        for n in range(len(answer)):
            p = network(torch.tensor([prompt + answer[:n]])).logits[0, -1].log_softmax(-1)
            run.model.adapters.load_tensors(teacher)
            q = network(torch.tensor([with_answer + answer[:n]])).logits[0, -1].log_softmax(-1)
            run.model.adapters.load_tensors(present)
            p, q = (p, q) if divergence == "reverse" else (q, p)
            per_token.append((p.exp() * (p - q)).sum())
        per_row.append(torch.stack(per_token).mean())
    return torch.stack(per_row)


@pytest.mark.parametrize("divergence", ["reverse", "forward"])
@pytest.mark.parametrize("rate", [0.0, 1.0])
@torch.no_grad()
def test_the_total_is_the_divergence_on_drawn_answers_for_own_rows_and_the_loss_for_others(
    llama, bert, monkeypatch, divergence, rate
):
    bench = make_bench("causal_lora", llama, bert)
    drawn = []

    def watched(*arguments):
        drawn.extend(draw_answers(*arguments))
        return drawn

    monkeypatch.setattr("everlearn.strategies.sdft.draw_answers", watched)
    run, strategy, step = first_step(bench, divergence=divergence, teacher_rate=rate, strength=0.8)
    teacher = weights(run)
    shift(run)
    outputs = step.outputs = run.model.objective.forward(run.model.network, step.batch)
    ce = F.cross_entropy(outputs.logits, outputs.targets, reduction="none")
    total = ce.mean() + strategy.penalty(step)
    distances = written_out(run, step, teacher if rate == 0 else weights(run), drawn, divergence)
    n_targets = torch.bincount(outputs.owners)
    own = outputs.owners < 2
    wanted = (0.8 * (distances * n_targets[:2]).sum() + 0.2 * ce[own].sum() + ce[~own].sum()) / len(ce)
    torch.testing.assert_close(total, wanted, rtol=1e-4, atol=1e-5)
    assert all(1 <= len(answer) <= 4 for answer in drawn)


def test_gradients_reach_the_student_and_not_the_teacher(llama, bert):
    run, strategy, step = first_step(make_bench("causal_lora", llama, bert))
    shift(run)
    step.outputs = run.model.objective.forward(run.model.network, step.batch)
    present = weights(run)
    strategy.penalty(step).backward()
    assert all(torch.equal(present[name], tensor) for name, tensor in weights(run).items())
    assert any(p.grad.abs().sum() > 0 for p in step.params.values())
    assert not any(tensor.requires_grad for tensor in strategy.teacher_.values())


def test_the_demonstrations_own_loss_leaves_no_gradient(llama, bert):
    """With a template that makes the teacher's prompt the student's, nothing is left to learn."""
    _, strategy, step = first_step(make_bench("causal_lora", llama, bert), teacher_rate=1.0)
    as_it_is = strategy._prompt_ids
    strategy._prompt_ids = lambda step, row, n_tokens: (as_it_is(step, row, n_tokens)[0],) * 2
    step.rows = [(0, 4), (0, 11), (0, 2), (0, 3)]
    (F.cross_entropy(step.outputs.logits, step.outputs.targets) + strategy.penalty(step)).backward()
    for p in step.params.values():
        assert p.grad.abs().max() < 1e-6


def test_the_teacher_follows_slowly_and_is_gone_after_the_task(llama, bert):
    seen = []

    class Watching(Strategy):
        def after_step(self, step):
            (sdft, _) = step.run.strategies
            seen.append(tuple({n: t.detach().clone() for n, t in now.items()} for now in (step.params, sdft.teacher_)))

    bench = make_bench("causal_lora", llama, bert)
    run = bench.run([SDFT(teacher_rate=0.25), Watching()], epochs=1)
    wanted = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}
    bench.learn(run, upto=1)
    for student, teacher in seen:
        wanted = {name: 0.75 * wanted[name] + 0.25 * student[name] for name in wanted}
        for name, tensor in wanted.items():
            torch.testing.assert_close(teacher[name], tensor)
    assert run.strategies[0].teacher_ == {}


def test_answers_change_from_step_to_step_and_not_with_the_batch(llama, bert, monkeypatch):
    drawn = []

    def watched(*arguments):
        drawn.append(draw_answers(*arguments))
        return drawn[-1]

    monkeypatch.setattr("everlearn.strategies.sdft.draw_answers", watched)
    _, strategy, step = first_step(make_bench("causal_lora", llama, bert))
    strategy.penalty(step)
    step.rows = [(0, 11), (1, 0), (1, 1), (1, 2)]
    strategy.penalty(step)
    step.index = 1
    strategy.penalty(step)
    assert drawn[1] == drawn[0][1:] != drawn[2]


def test_it_learns_what_the_teacher_knows(llama, bert):
    """Against a fixed teacher the divergence falls."""
    bench, distances = make_bench("causal_full", llama, bert), []
    run = bench.run([SDFT(teacher_rate=0.0, divergence="forward", template=TEMPLATE)], epochs=16, learning_rate=3e-3)
    (strategy,) = run.strategies
    measure = strategy._distances

    def watched(step, rows):
        distances.append(measure(step, rows))
        return distances[-1]

    strategy._distances = watched
    bench.learn(run, upto=1)
    first, last = torch.cat(distances[:3]).mean(), torch.cat(distances[-3:]).mean()
    assert last < 0.8 * first


def test_running_text_is_refused(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    bench = replace(bench, tasks=(text_task(0), text_task(1)))
    with pytest.raises(ConfigError, match=r"sdft needs prompts to answer. Got 'text'"):
        bench.learn(bench.run(["sdft"]))


@pytest.mark.parametrize(
    "template", ["{prompt}", "{completion} {other}", "{completion", "{completion}{}", "{completion:d}"]
)
def test_a_template_without_the_demonstration_is_refused(template):
    with pytest.raises(ConfigError, match=r"sdft\.template"):
        SDFT(template=template)
