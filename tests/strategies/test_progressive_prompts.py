from dataclasses import replace

import pytest
import torch

from everlearn.models.prompts import prompts_of
from support.runs import Bench, StopAfter, Stopped, answers, assert_same, learn_at, make_bench, weights
from support.tasks import prompt_task


@pytest.fixture
def bench(llama, bert):
    return make_bench("causal_lora", llama, bert)


def three(bench):
    return Bench(bench.kind, bench.config, tuple(prompt_task(number) for number in range(3)))


def test_the_newest_prompt_stands_first_and_earlier_tasks_do_without_later_ones(bench):
    bench = three(bench)
    run = bench.learn(bench.run([{"name": "progressive_prompts", "length": 2}], epochs=1))
    stack = prompts_of(run.model.network)
    ids = {"input_ids": torch.ones(4, 3, dtype=torch.long)}
    for position, task in enumerate(bench.tasks):
        run.strategies[0].before_eval(run, task)
        wanted = torch.cat([stack.values[i] for i in reversed(range(position + 1))])
        assert torch.equal(stack.vectors(ids), wanted.expand(4, -1, -1))


def test_only_the_present_task_s_prompt_moves(bench):
    bench = three(bench)
    run = bench.learn(bench.run(["progressive_prompts"], weight_decay=0.1), upto=2)
    before = {name: p.detach().clone() for name, p in run.model.network.named_parameters()}
    run.position = 2
    run.learn(bench.tasks[2])
    now = dict(run.model.network.named_parameters())
    assert all(torch.equal(now[name], p) for name, p in before.items())
    (new,) = set(now) - set(before)
    assert list(run.model.adapters.trainable()) == [new]
    begun = bench.run(["progressive_prompts"])
    for task in bench.tasks:
        begun.strategies[0].adapt_model(begun, task)
    assert not torch.equal(now[new], prompts_of(begun.model.network).values[2])


def test_replayed_rows_don_t_move_the_heads_of_earlier_tasks(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run([{"name": "progressive_prompts", "length": 3}, "replay"], weight_decay=0.1), upto=1)
    before = answers(run, bench.tasks[0])
    learn_at(run, bench.tasks[1], 1)
    assert torch.equal(answers(run, bench.tasks[0]), before)
    learn_at(run, bench.tasks[0], 2)
    assert not torch.equal(answers(run, bench.tasks[0]), before)


@pytest.mark.parametrize("kind", ["causal_lora", "classify"])
def test_with_the_mlp_earlier_answers_stay_too(kind, llama, bert):
    bench = make_bench(kind, llama, bert)
    run = bench.learn(bench.run([{"name": "progressive_prompts", "mlp": 8}], weight_decay=0.1), upto=1)
    before = answers(run, bench.tasks[0])
    stack = prompts_of(run.model.network)
    raw, whole = stack.values[0].clone(), stack.prompt(stack.values[0]).clone()
    assert not torch.equal(raw, whole)
    run.position = 1
    run.learn(bench.tasks[1])
    assert torch.equal(answers(run, bench.tasks[0]), before)
    assert torch.equal(stack.values[0], whole)
    assert torch.equal(stack.prompt(stack.values[0]), whole)


@pytest.mark.parametrize("mlp", [0, 8])
def test_a_task_that_comes_again_goes_on_with_its_prompt_and_changes_no_other(bench, mlp):
    bench = three(bench)
    first, second, third = bench.tasks
    run = bench.learn(bench.run([{"name": "progressive_prompts", "length": 2, "mlp": mlp}], epochs=1), upto=2)
    strategy, stack = run.strategies[0], prompts_of(run.model.network)
    kept = answers(run, first), answers(run, second)
    strategy.adapt_model(run, first)  # it begins where it stood
    torch.testing.assert_close(answers(run, first), kept[0])
    for position, again in enumerate((first, first, second, second), start=2):
        other = second if again is first else first
        before = answers(run, again), answers(run, other)
        learn_at(run, again, position)
        assert not torch.equal(answers(run, again), before[0])
        assert torch.equal(answers(run, other), before[1])
    before = answers(run, first), answers(run, second)
    learn_at(run, third, 6)
    assert torch.equal(answers(run, first), before[0])
    assert torch.equal(answers(run, second), before[1])
    assert strategy.counts_ == {"add_0": 1, "add_1": 2, "add_2": 3}
    assert (len(stack.values), list(stack.again)) == (3, ["0"])  # the second one's was the newest, and is shared now
    learn_at(run, second, 7)
    assert torch.equal(answers(run, first), before[0])
    assert list(stack.again) == ["0", "1"]
    restored = bench.run([{"name": "progressive_prompts", "length": 2, "mlp": mlp}])
    restored.load_state(run.state())
    for task in bench.tasks:
        assert torch.equal(answers(restored, task), answers(run, task))


def test_stopped_while_a_task_comes_again_it_resumes_to_the_same_end(bench, tmp_path):
    bench = Bench(bench.kind, bench.config, (*bench.tasks, bench.tasks[0], bench.tasks[1]))
    strategies = [{"name": "progressive_prompts", "length": 2, "mlp": 4}]
    whole = bench.learn(bench.run(strategies, epochs=1))
    with pytest.raises(Stopped):
        bench.learn(bench.run(strategies, folder=tmp_path, epochs=1, every_steps=1, listener=StopAfter(8)))
    resumed = bench.learn(bench.run(strategies, folder=tmp_path, epochs=1, every_steps=1))
    assert_same(weights(whole), weights(resumed))


def test_tasks_learned_without_it_are_answered_with_the_prompts_that_there_were(bench):
    bench = three(bench)
    first, second, third = bench.tasks
    plain = bench.learn(bench.run(epochs=1), upto=1)
    run = bench.run([{"name": "progressive_prompts", "length": 2}], epochs=1)
    run.load_state(plain.state())
    before = answers(plain, first)
    learn_at(run, second, 1)
    assert torch.equal(answers(run, first), before)
    without = bench.run(epochs=1)
    without.load_state(run.state())
    learn_at(without, first, 2)
    again = bench.run([{"name": "progressive_prompts", "length": 2}], epochs=1)
    again.load_state(without.state())
    learn_at(again, third, 3)
    assert torch.equal(answers(again, first), answers(without, first))
    learn_at(again, first, 4)  # what it learned last isn't in a prompt of its own
    assert again.strategies[0].counts_ == {"add_0": 3, "add_1": 1, "add_2": 2}


def test_what_the_checkpoint_lacked_is_trained_with_the_first_task_only(llama, bert):
    bench = make_bench("classify", llama, bert)
    run = bench.learn(bench.run(["progressive_prompts"], epochs=1), upto=1)
    assert any("pooler" in name for name in run.model.adapters.trainable())
    before = weights(run)
    run.position = 1
    run.learn(bench.tasks[1])
    now = weights(run)
    moved = [name for name, tensor in before.items() if not torch.equal(tensor, now[name])]
    assert moved == []
    assert not any("pooler" in name or "lora" in name for name in run.model.adapters.trainable())


def test_the_prompt_is_learned(bench):
    scored = Bench(bench.kind, bench.config, (replace(bench.tasks[0], metrics=("token_log_likelihood",)),))
    run = scored.run(["progressive_prompts"], epochs=10, learning_rate=0.1)
    before = run.score(scored.tasks[0]).value
    scored.learn(run)
    assert run.score(scored.tasks[0]).value > before + 0.5
