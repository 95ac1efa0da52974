"""Every strategy where a model learns from its own answers: it does what it says, or is refused with a reason."""

from dataclasses import replace

import pytest
import torch

from everlearn.config import CheckpointConfig, build_strategies
from everlearn.errors import ConfigError
from everlearn.learners import ppo
from everlearn.learners.devices import start_accelerator
from everlearn.learners.ppo import PPO
from everlearn.learners.teacher import as_teacher
from everlearn.models.load import ModelConfig, load_model
from everlearn.registry import find, names
from everlearn.rl.sampler import Sampler
from everlearn.rl.weights import reference_weights, snapshot
from everlearn.saving import Saving
from everlearn.strategy import HOOKS, NEEDS_TARGETS, overriding
from everlearn.way import Run
from support.policy import ADAPTERS, SMALL, letters_task
from support.runs import TRAITS, StopAfter, Stopped, assert_same, weights

NEED_TARGETS = {"agem", "cmt", "der", "derpp", "er_ace", "gamma_ewc", "gem", "pcgr", "rwalk", "sdft"}
OPTIONS = {"grow": {"when": "always", "new_rank": 2}, "self_replay": {"n_texts": 4, "max_tokens": 6}}
AS_THEY_STAND = {"aflora", "hat", "l2p", "pnn", "progressive_prompts"}  # models that no plain copy is made of
SUITED = sorted(set(names("strategy")) - NEED_TARGETS)


def two_tasks():
    """Return two tasks of unlike prompts; what is right in the first is not what is right in the second."""
    first, second = letters_task("starts_low"), letters_task("is_odd")
    rows = [[{**row, "prompt": f"{row['prompt']}?"} for row in own] for own in (second.train, second.evaluation)]
    return replace(first, name="low"), replace(second, name="odd", train=rows[0], evaluation=rows[1])


TASKS = two_tasks()
FULL = ("lwf", "osf", "packnet", "self_replay")  # with all weights trained; the others aren't of another kind then


def new_run(llama, strategies, adapter="lora", folder=None, listener=None, **options):
    entries = [{"name": one, **OPTIONS.get(one, {})} if isinstance(one, str) else one for one in strategies]
    return Run(
        model=load_model(ModelConfig(str(llama), ADAPTERS[adapter]), TASKS, 0),
        learner=PPO(**{**SMALL, **options}),
        strategies=build_strategies(entries),
        accelerator=start_accelerator(device="cpu"),
        tasks={task.name: task for task in TASKS},
        saving=Saving(folder, CheckpointConfig(every_s=None, every_steps=1)),
        **({} if listener is None else {"listener": listener}),
    )


def go(run, upto=2):
    """Learn the tasks from the first, or from where the run's newest checkpoint stands."""
    training, begin = None, len(run.learned)
    if run.saving.folder is not None and (run.saving.folder / "checkpoints").exists():
        training = run.restore()
        begin = run.position if training is not None else run.position + 1
    for position in range(begin, upto):
        run.position = position
        run.learn(TASKS[position], training["learner"] if training else None)
        training = None
        run.checkpoint()
    return run


def suits(name, adapter):
    cls = find("strategy", name)
    return not any(set(trait.split("+")) <= {*TRAITS[f"causal_{adapter}"], "rollouts"} for trait in cls.unsuited)


RUNS = [(n, a) for n in SUITED for a in ADAPTERS if suits(n, a) and (a == "lora" or n in FULL)]


class Watched:
    """Counts the calls of a strategy's hooks, and looks at the steps that they are shown."""

    def __init__(self, run):
        self.calls = dict.fromkeys(HOOKS, 0)
        for strategy in run.strategies:
            for hook in HOOKS:
                if overriding([strategy], hook):
                    setattr(strategy, hook, self.watching(hook, getattr(strategy, hook)))

    def watching(self, hook, method):
        def watched(*arguments):
            self.calls[hook] += 1
            if hook == "penalty":
                step = arguments[0]
                assert len(step.rows) > int(step.outputs.owners.max())
                assert len(step.weights) == len(step.outputs.targets)
            if hook == "end_task":
                run, task = arguments
                assert len(task.train)
                assert task.name == run.current
            return method(*arguments)

        return watched


@pytest.mark.parametrize(("name", "adapter"), RUNS)
def test_it_learns_two_tasks_with_its_hooks_called_and_resumes(name, adapter, llama, tmp_path):
    run, told = new_run(llama, [name], adapter, tmp_path / "whole"), []

    def hear(run, task, numbers, last):
        told.append(numbers)
        check_sampler(run)

    run.learner.told = hear
    watched = Watched(run)
    go(run)
    n_asked = 2 if name == "joint" else 4
    assert len(told) == n_asked
    assert all(abs(v) < 1e6 for numbers in told for v in numbers.values() if isinstance(v, int | float))
    assert any(numbers["gradient_norm"] > 0 for numbers in told)
    for hook in HOOKS[:-1]:
        least = {"penalty": 1, "edit_grads": 2, "after_step": 2}.get(hook, 2)
        assert watched.calls[hook] >= least or not overriding(run.strategies, hook), hook
    assert all(p.isfinite().all() for p in weights(run).values())
    with pytest.raises(Stopped):
        go(new_run(llama, [name], adapter, tmp_path / "stopped", StopAfter(n_asked)))
    resumed = go(new_run(llama, [name], adapter, tmp_path / "stopped"))
    assert_same(weights(resumed), weights(run))


def check_sampler(run):
    """Check that what is drawn from is the model that learns, whatever a strategy put into it."""
    sampler = Sampler(run.model, run.accelerator.device, "float32")
    drawn_from = sampler._copy or run.model.network
    assert (sampler._copy is None) == (run.strategies[0].name in AS_THEY_STAND or run.model.adapters.mode == "full")
    with torch.no_grad(), run.model.evaluating():
        found = [net(torch.tensor([[5, 6, 7, 8]])).logits for net in (drawn_from, run.model.network)]
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", sorted(NEED_TARGETS))
def test_it_is_refused_where_it_needs_right_answers(name, llama):
    with pytest.raises(ConfigError, match=f"strategy '{name}': {NEEDS_TARGETS}"):
        new_run(llama, [name])


@pytest.mark.parametrize(
    ("strategy", "message"),
    [
        ({"name": "lwf", "cache_top_k": 3}, "lwf.cache_top_k: needs the rows beforehand"),
        ({"name": "grow"}, "grow.when: it tries a task first"),
        ({"name": "replay", "weight": 2.0}, "replay.weight: it works on a loss"),
    ],
)
def test_an_option_that_needs_right_answers_is_refused(strategy, message, llama):
    with pytest.raises(ConfigError, match=message):
        new_run(llama, [strategy | {"strength": 1.0} if strategy["name"] == "lwf" else strategy])


def after_first(llama, strategies, adapter="lora", **options):
    """Return a run that learned the first task, and its weights then."""
    run = go(new_run(llama, strategies, adapter, **options), upto=1)
    return run, weights(run)


@pytest.mark.parametrize("name", ["ewc", "l2", "mas"])
def test_a_stronger_penalty_holds_weights_closer(name, llama):
    moved = []
    for strength in (0.0, 1e4):
        run, before = after_first(llama, [{"name": name, "strength": strength}], iterations=5, learning_rate=0.003)
        go(run)
        moved.append(sum((p - before[n]).square().sum().item() for n, p in weights(run).items()) ** 0.5)
    assert moved[1] < 0.9 * moved[0]


def test_lwf_is_0_at_first_and_holds_the_policy_of_before(llama):
    far = []
    for strength in (0.0, 30.0):
        run, before = after_first(llama, [{"name": "lwf", "strength": strength, "temperature": 1.0}], iterations=6)
        lwf, penalties = run.strategies[0], []
        method = lwf.penalty
        lwf.penalty = lambda step, method=method, own=penalties: own.append(method(step)) or own[-1]
        go(run)
        far.append(distance_of_answers(run, before))
    assert penalties[0].item() == pytest.approx(0.0, abs=1e-6)
    assert max(one.item() for one in penalties) > 1e-4
    assert far[1] < 0.8 * far[0]


def distance_of_answers(run, before):
    """Return KL(earlier policy || policy) at the end of the first task's prompts, nats."""
    found = []
    for values in (before, {}):
        with as_teacher(run, values):
            found.append(next_token(run, TASKS[0]).log_softmax(-1))
    return (found[0].exp() * (found[0] - found[1])).sum(-1).mean().item()


def next_token(run, task):
    """Return logits of the first token of an answer to each evaluation problem."""
    prompts = run.model.objective.questions(task.evaluation, 4)
    return torch.cat([run.model.network(torch.tensor([ids])).logits[:, -1] for ids in prompts]).float()


@pytest.mark.parametrize("name", ["packnet", "separate", "hat", "pnn", "progressive_prompts"])
def test_what_the_first_task_answers_stays_bit_equal(name, llama):
    run, _ = after_first(llama, [name], updates=2)
    found = []
    for upto in (1, 2):
        go(run, upto)
        with run.ready_for(TASKS[0]), torch.no_grad(), run.model.evaluating():
            found.append(next_token(run, TASKS[0]))
    assert torch.equal(*found)


class Asked:
    """Whose problems each iteration asks, and which rows it learns as they stand."""

    def __init__(self, monkeypatch):
        self.tasks, self.as_they_are, self.rows = [], 0, []
        judge, learn = ppo._Lesson._judge, ppo._Lesson._as_they_are

        def judged(lesson, number, answered):
            self.tasks.append([one.task.name for one in answered])
            self.rows += [one.row for one in answered]
            return judge(lesson, number, answered)

        def learned(lesson, addresses, mean_length):
            self.as_they_are += len(addresses)
            return learn(lesson, addresses, mean_length)

        monkeypatch.setattr(ppo._Lesson, "_judge", judged)
        monkeypatch.setattr(ppo._Lesson, "_as_they_are", learned)


@pytest.fixture
def asked(monkeypatch):
    return Asked(monkeypatch)


def test_replay_asks_old_problems_again_at_its_ratio(asked, llama):
    run = go(new_run(llama, [{"name": "replay", "ratio": 0.5}], prompts=6))
    assert [each.count("low") for each in asked.tasks] == [6, 6, 3, 3]
    assert [each.count("odd") for each in asked.tasks] == [0, 0, 6, 6]
    assert not asked.as_they_are
    own = {row["prompt"]: row for task in TASKS for row in task.train}
    assert all(row == own[row["prompt"]] for row in asked.rows)  # judged by its own answer, not by the one kept
    kept = run.strategies[0].memory_["low"]["rows"]
    assert all(row["completion"] and ord(row["completion"][0]) < 80 for row in kept)  # the model's own, and right


def test_replay_learns_kept_answers_as_they_stand(asked, llama):
    go(new_run(llama, [{"name": "replay", "ratio": 0.5}], prompts=6, replayed="answer"))
    assert [len(each) for each in asked.tasks] == [6, 6, 6, 6]
    assert asked.as_they_are == 6


def test_joint_and_cumulative_ask_problems_of_all_tasks(asked, llama):
    go(new_run(llama, ["joint"], prompts=16))
    assert [sorted(set(each)) for each in asked.tasks] == [["low", "odd"]] * 2  # and none in the second task
    asked.tasks.clear()
    go(new_run(llama, ["cumulative", "ewc"], prompts=16))
    assert [sorted(set(each)) for each in asked.tasks] == [["low"]] * 2 + [["low", "odd"]] * 2


def test_self_replay_keeps_the_policy_closer_to_the_base(asked, llama):
    far = []
    for ratio in (0.0, 2.0):
        run = new_run(
            llama, [{"name": "self_replay", "n_texts": 16, "max_tokens": 8, "ratio": ratio, "strength": 20.0}]
        )
        start = snapshot(run.model.adapters.trainable())
        run.learner.iterations = 6
        far.append(distance_of_answers(go(run), start))
    assert asked.as_they_are == 2 * 4 * 12
    assert far[1] < 0.9 * far[0]


@pytest.mark.parametrize("name", ["olora", "inclora", "grow"])
def test_the_reference_is_the_policy_of_before_whatever_came_since(name, llama):
    run = new_run(llama, [name])
    start, at_start = snapshot(run.model.adapters.trainable()), next_token(run, TASKS[0])
    go(run)
    with as_teacher(run, reference_weights(run.model, start)):
        again = next_token(run, TASKS[0])
    torch.testing.assert_close(again, at_start)
    assert (next_token(run, TASKS[0]) - at_start).abs().max() > 1e-3


@pytest.mark.parametrize("reward", ["is_right", "is_anything"])
def test_strategies_hold_what_answers_were_worth_or_else_right_ones(reward, llama):
    """Where no answer is worth anything, the task's own rows are consolidated on."""
    seen = []
    run = new_run(llama, ["ewc"])
    end_task = run.strategies[0].end_task
    run.strategies[0].end_task = lambda run, task: seen.append(task.train) or end_task(run, task)
    verifier = None if reward == "is_right" else "support.policy:is_anything"
    run.learn(replace(TASKS[0], verifier=verifier))
    if reward == "is_right":
        assert seen[0] == TASKS[0].train
    else:
        assert all(row["own_answer"] == "ab" for row in seen[0])
