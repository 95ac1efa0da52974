"""Experts: which one answers a task, what that costs, and that a run which was stopped ends with the same library."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from everlearn import registry
from everlearn.errors import ConfigError, StateError
from everlearn.evaluation.predict import predict
from everlearn.experts import Library
from everlearn.experts.router import Decision, Router
from everlearn.experts.rows import predict_rows, score_rows
from everlearn.listener import Listener
from everlearn.models.load import AdapterConfig, ModelConfig
from everlearn.strategies.experts import Experts
from everlearn.strategy import why_apart
from everlearn.trainer import ContinualTrainer
from everlearn.types import Task
from everlearn.way import Run
from support.experts import state_of
from support.runs import Bench, StopAfter, Stopped, answers, assert_same, learn_at, make_bench, suits, weights
from support.tasks import contrary_task, prompt_task

NEW, REUSE, ADAPT = {"threshold": 1.1}, {"threshold": -1.0}, {"threshold": 2.0, "adapt_above": -1.0}


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here outlives the machine, and waiting for its disk is most of the time."""
    monkeypatch.setattr("os.fsync", lambda handle: None)


@pytest.fixture
def bench(llama, bert) -> Bench:
    """Two tasks whose answers are in each other's way, with rows to compare experts on."""
    return with_validation(make_bench("contrary_lora", llama, bert))


def with_validation(bench: Bench) -> Bench:
    return replace(bench, tasks=tuple(judged(task) for task in bench.tasks))


def judged(task: Task, name: str | None = None) -> Task:
    """Return a task that is scored by the likelihood of its answers, which tells of few rows what was learned."""
    metrics = ("token_log_likelihood",) if task.kind == "prompt" else task.metrics
    return replace(task, name=name or task.name, validation=task.evaluation, metrics=metrics)


def start(
    bench: Bench, *others: object, folder: Path | None = None, listener: Listener | None = None, **options
) -> Run:
    """Return a run with experts first and others beside them."""
    return bench.run(
        [{"name": "experts", **options}, *others], folder=folder, listener=listener, every_steps=2, learning_rate=0.03
    )


def library_of(run: Run) -> Library:
    return run.strategies[0]._library


def decided(run: Run) -> dict:
    """Return the last decision, as it stands in the library's log."""
    return [event for event in library_of(run).events() if event["event"] == "decided"][-1]


def test_what_is_reused_is_not_trained(bench):
    run = start(bench, router=REUSE)
    first = learn_at(run, bench.tasks[0], 0)
    again = judged(bench.tasks[0], "again")
    cost = learn_at(run, again, 1)
    assert (first.n_steps > 0, cost.n_steps, cost.n_tokens, cost.mean_loss) == (True, 0, 0, None)
    (expert,) = library_of(run).experts
    assert (expert.uses, expert.tasks) == (1, ("say_0",))
    assert torch.equal(answers(run, again), answers(run, bench.tasks[0]))
    told = cost.strategy_facts["experts"]
    assert (told["action"], told["answers"], told["n_experts"], told["steps"]) == ("reuse", 0, 1, 0)
    line = decided(run)
    assert (line["action"], line["expert"], line["steps"], line["tau"]) == ("reuse", 0, 0, -1.0)
    assert line["candidates"][0]["task"] == "say_0"


def test_what_is_reused_is_not_trained_where_the_learner_finds_the_number_of_epochs(bench):
    run = bench.run([{"name": "experts", "router": REUSE}, "replay"], epochs="auto", max_epochs=2, learning_rate="auto")
    learn_at(run, bench.tasks[0], 0)
    assert learn_at(run, bench.tasks[1], 1).n_steps == 0


def test_the_oracle_finds_the_first_task_of_the_skill_whatever_the_order(bench):
    run = start(bench, router={"similarity": "oracle"}, oracle={"late": "saying", "say_0": "saying", "later": "say_1"})
    for position, (task, name) in enumerate([(0, "late"), (1, "say_1"), (0, "say_0"), (1, "later"), (1, "unnamed")]):
        learn_at(run, judged(bench.tasks[task], name), position)
    assert run.strategies[0].experts_ == {"late": 0, "say_1": 1, "say_0": 0, "later": 1, "unnamed": 2}


def test_new_experts_leave_earlier_answers_bit_equal(bench):
    run = start(bench, router=NEW)
    learn_at(run, bench.tasks[0], 0)
    before = answers(run, bench.tasks[0])
    learn_at(run, bench.tasks[1], 1)
    assert torch.equal(answers(run, bench.tasks[0]), before)
    assert [expert.number for expert in library_of(run).experts] == [0, 1]
    plain = bench.run(learning_rate=0.03)
    base = answers(plain, bench.tasks[0])
    torch.testing.assert_close(answers(run, replace(bench.tasks[0], name="unknown")), base)


def test_the_nearest_answers_are_the_calibrations_outcome(bench):
    run = start(bench, router={"bootstrap": 0})
    learn_at(run, bench.tasks[0], 0)
    assert decided(run)["reuse_was_right"] is None
    learn_at(run, bench.tasks[1], 1)
    assert decided(run)["reuse_was_right"] is False
    assert library_of(run).router()["state"]["outcomes"]["right"].tolist() == [False]
    assert library_of(run).expert(1).scores["say_1"]["n"] == len(bench.tasks[1].validation)


@pytest.fixture
def trying(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that would be reused is tried beside a new expert."""
    decide = Router.decide

    def tried(*arguments: object, **options: object) -> Decision:
        decision = decide(*arguments, **options)
        return replace(decision, trial=decision.action == "reuse")

    monkeypatch.setattr(Router, "decide", tried)


@pytest.mark.parametrize(("number", "kept"), [(0, False), (1, True)])
def test_a_trial_keeps_the_better_of_the_two(bench, trying, number, kept):
    run = start(bench, router=REUSE, margin=1.0)
    learn_at(run, bench.tasks[0], 0)
    before = answers(run, bench.tasks[0])
    tried = judged(bench.tasks[number], "tried")
    assert learn_at(run, tried, 1).n_steps > 0
    assert len(library_of(run)) == 1 + kept
    line = decided(run)
    assert (line["trial"], line["reuse_was_right"], line["answers"]) == (True, not kept, int(kept))
    assert torch.equal(answers(run, bench.tasks[0]), before)
    assert library_of(run).expert(0).uses == (not kept)
    assert not kept or not torch.equal(answers(run, tried), answers(run, replace(tried, name="say_0")))


def test_without_validation_rows_some_are_kept_out_of_training_to_compare_on(bench):
    first, second = (replace(contrary_task(number, n_train=48), metrics=("token_log_likelihood",)) for number in (0, 1))
    run = start(bench, router=NEW)
    learn_at(run, first, 0)
    seen = []
    learn = run.learner.train
    run.learner = replace(run.learner)
    object.__setattr__(run.learner, "train", lambda *given: (seen.append(given[2]), learn(*given))[1])
    learn_at(run, second, 1)
    assert len(seen[0].groups[0]) == 40
    assert decided(run)["reuse_was_right"] is False
    assert library_of(run).expert(1).rows == {"say_1": 40}
    assert library_of(run).expert(0).rows == {"say_0": 48}  # there was nothing to compare with


def test_the_first_tasks_share_a_lora(bench):
    run = start(bench, share_first=2, router=NEW)
    for position, task in enumerate((*bench.tasks, judged(prompt_task(0)))):
        learn_at(run, task, position)
    shared, own = library_of(run).experts
    assert (shared.tasks, own.tasks) == (("say_0", "say_1"), ("add_0",))
    assert len(shared.prototypes) == 2
    assert run.strategies[0].experts_ == {"say_0": 0, "say_1": 0, "add_0": 1}


def test_a_fork_begins_from_the_nearest_and_leaves_it_alone(bench):
    run = start(bench, router={"threshold": 2.0, "fork_above": -1.0})
    learn_at(run, bench.tasks[0], 0)
    before, lora = answers(run, bench.tasks[0]), library_of(run).lora(0)
    run.learner = replace(run.learner, learning_rate=1e-9)
    learn_at(run, bench.tasks[1], 1)
    forked = library_of(run).expert(1)
    assert (forked.origin, forked.parents) == ("forked", (0,))
    assert_same(library_of(run).lora(1).tensors, lora.tensors, tolerance=1e-6)
    assert torch.equal(answers(run, bench.tasks[0]), before)


def lost(bench: Bench, *others: object) -> float:
    """Return the log-likelihood per token that the first task loses when its expert learns the second."""
    run = start(bench, *others, router=ADAPT)
    learn_at(run, bench.tasks[0], 0)
    before = run.score(bench.tasks[0]).value
    learn_at(run, bench.tasks[1], 1)
    assert decided(run)["action"] == "adapt"
    (expert,) = library_of(run).experts
    assert (expert.tasks, len(expert.prototypes), len(expert.earlier)) == (("say_0", "say_1"), 2, 1)
    return before - run.score(bench.tasks[0]).value


def test_methods_beside_it_hold_an_expert_that_learns_on(bench):
    plain = lost(bench)
    assert plain > 0.5
    assert lost(bench, {"name": "ewc", "strength": 1e4}) < 0.8 * plain
    assert lost(bench, {"name": "replay", "ratio": 1.0}) < 0.8 * plain


def test_methods_beside_it_keep_a_state_for_each_expert(bench):
    run = start(bench, "ewc", "replay", router=NEW)
    ewc, replay = run.strategies[1:]
    learn_at(run, bench.tasks[0], 0)
    first = {name: tensor.clone() for name, tensor in ewc.precision_.items()}
    learn_at(run, bench.tasks[1], 1)
    assert list(replay.memory_) == ["say_1"]
    seen = {}

    class Looking(Listener):
        def step(self, done: int, loss: float) -> None:
            seen.update(precision=dict(ewc.precision_), memory=list(replay.memory_), past=run.past_tasks())

    run.listener = Looking()
    learn_at(run, bench.tasks[0], 2)  # its own expert learns on
    assert_same(seen["precision"], first)
    assert (seen["memory"], seen["past"]) == (["say_0"], ["say_0"])
    assert run.past_tasks() == ["say_0", "say_1"]
    assert len(library_of(run)) == 2
    assert decided(run)["reason"] == "It learns more of a task of its own."


@pytest.mark.parametrize("others", [["ema"], ["ewc", "ema"]])
def test_wherever_it_stands_in_the_list_it_keeps_what_the_others_leave(bench, others):
    loras = []
    for strategies in (["experts", *others], [*others, "experts"]):
        run = bench.run(strategies, learning_rate=0.03)
        assert isinstance(run.strategies[0], Experts)
        learn_at(run, bench.tasks[0], 0)
        loras.append(library_of(run).lora(0).tensors)
        kept = run.model.adapters.trainable()
        name = "base_model.model.model.layers.0.self_attn.q_proj.lora_A"
        assert torch.equal(loras[-1][f"{name}.weight"], kept[f"{name}.default.weight"])
    assert_same(*loras)


def test_several_experts_answer_together(bench):
    run = start(bench, router={"compose": True, "threshold": 2.0, "fork_above": 1.5})
    for position, task in enumerate(bench.tasks):
        learn_at(run, task, position)
    (strategy,) = run.strategies
    strategy._router_config = replace(strategy._router_config, fork_above=-1.0)
    rows = [row for task in bench.tasks for row in task.train]
    both = replace(bench.tasks[0], name="both", train=rows)
    cost = learn_at(run, both, 2)
    assert (cost.n_steps, decided(run)["action"], len(library_of(run))) == (0, "compose", 2)
    numbers, shares = strategy.composed_["both"]
    assert sorted(numbers) == [0, 1]
    assert all(shares)
    again = start(bench, router={"compose": True})
    again.load_state(run.state())
    assert torch.equal(answers(again, both), answers(run, both))
    alone = [-run.score(replace(both, name=name, evaluation=rows)).value for name in ("say_0", "say_1")]
    assert -run.score(replace(both, evaluation=rows)).value < min(alone)


TIDY = {"every": 2, "margin": 1.0, "deltas_above": -1.0, "merge_above": -1.0}


def test_experts_that_came_to_be_alike_become_one(bench, tmp_path):
    alike = replace(bench, tasks=(bench.tasks[0], judged(bench.tasks[0], "again")))
    run = alike.learn(start(alike, folder=tmp_path / "run", router=NEW, tidy=TIDY))
    (expert,) = library_of(run).experts
    (event,) = [event for event in library_of(run).events() if event["event"] == "tidied"]
    assert (event["experts"], event["kept"], event["answers"]) == ([0, 1], 0, 0)
    assert run.strategies[0].experts_ == {"say_0": 0, "again": 0}
    assert sorted(expert.tasks) == ["again", "say_0"]
    assert torch.equal(answers(run, alike.tasks[1]), answers(run, alike.tasks[0]))
    with pytest.raises(Stopped):
        alike.learn(start(alike, folder=tmp_path / "stopped", listener=StopAfter(7), router=NEW, tidy=TIDY))
    again = alike.learn(start(alike, folder=tmp_path / "stopped", router=NEW, tidy=TIDY))
    check_same(again, run, alike)


def test_experts_that_answer_otherwise_stay_two(bench):
    run = bench.learn(start(bench, router=NEW, tidy=TIDY | {"margin": 0.05}))
    assert (len(library_of(run)), run.strategies[0].experts_) == (2, {"say_0": 0, "say_1": 1})


@pytest.mark.parametrize("others", [["ewc"], ["replay"]])
def test_tidying_is_refused_beside_methods_that_keep_a_state_for_each_expert(bench, others):
    with pytest.raises(ConfigError, match=f"a method beside it keeps a state for each expert. Got .*{others[0]}"):
        learn_at(start(bench, *others, tidy={"every": 2}), bench.tasks[0], 0)


def test_tidying_is_refused_where_a_library_outlives_the_run(bench, tmp_path):
    run = start(bench, tidy={"every": 2})
    run.library = tmp_path / "library"
    with pytest.raises(ConfigError, match="asks validation rows of earlier tasks"):
        learn_at(run, bench.tasks[0], 0)


def test_several_experts_answer_token_by_token(bench):
    options = {"router": {"compose": True, "threshold": 2.0, "fork_above": 1.5}, "compose_by": "arrow"}
    run = start(bench, **options)
    for position, task in enumerate(bench.tasks):
        learn_at(run, task, position)
    (strategy,) = run.strategies
    strategy._router_config = replace(strategy._router_config, fork_above=-1.0)
    both = replace(bench.tasks[0], name="both")
    assert learn_at(run, both, 2).n_steps == 0
    assert strategy.composed_ == {"both": [[0, 1], None]}
    again = start(bench, **options)
    again.load_state(run.state())
    assert torch.equal(answers(again, both), answers(run, both))
    assert not torch.equal(answers(run, both), answers(run, bench.tasks[0]))
    with pytest.raises(ConfigError, match="answer it token by token, which is no single adapter"):
        strategy.lay_in(run, both)


def test_a_trial_needs_rows_to_compare_on(bench):
    run = start(bench, router={"risk": 0.25})
    for position, name in enumerate(("say_0", "again")):
        learn_at(run, replace(bench.tasks[0], name=name, validation=None), position)
    line = decided(run)
    assert (line["action"], line["trial"], line["trial_chance"], line["steps"]) == ("reuse", False, 1.0, 0)
    assert line["reason"].endswith("at or above the bar of 0.50. There are too few rows to try it on.")


@pytest.mark.parametrize("n_steps", [5, 9])
def test_a_run_that_was_stopped_ends_with_the_same_library(bench, tmp_path, n_steps):
    options = {"router": {"threshold": 2.0, "adapt_above": -1.0}}
    whole = bench.learn(start(bench, "ewc", folder=tmp_path / "whole", **options))
    with pytest.raises(Stopped):
        bench.learn(start(bench, "ewc", folder=tmp_path / "run", listener=StopAfter(n_steps), **options))
    run = bench.learn(start(bench, "ewc", folder=tmp_path / "run", **options))
    check_same(run, whole, bench)


@pytest.mark.parametrize("position", [0, 1])
def test_what_was_kept_before_a_crash_and_never_saved_is_made_once(bench, tmp_path, monkeypatch, position):
    whole = bench.learn(start(bench, folder=tmp_path / "whole", router=NEW))
    run, checkpoint = start(bench, folder=tmp_path / "run", router=NEW), Run.checkpoint

    def crash(run: Run, training: dict | None = None) -> None:
        if training is None and run.position == position:
            raise Stopped
        checkpoint(run, training)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "checkpoint", crash)
        with pytest.raises(Stopped):
            bench.learn(run)
    assert len(Library.open(tmp_path / "run" / "library" / "seed-0")) == position + 1
    check_same(bench.learn(start(bench, folder=tmp_path / "run", router=NEW)), whole, bench)


def check_same(run: Run, whole: Run, bench: Bench) -> None:
    assert_same(weights(run), weights(whole))
    first, second = library_of(run), library_of(whole)
    for library in (first, second):
        assert library.router()["state"]["n_decisions"] == 2
        library.keep_router({"step": 0})
    assert state_of(first) == state_of(second)
    for expert in first.experts:
        assert_same(first.lora(expert.number).tensors, second.lora(expert.number).tensors)
    for task in bench.tasks:
        assert torch.equal(answers(run, task), answers(whole, task))
    kept = {path.name for path in (first.path / "experts").iterdir()}
    assert kept == {path.name for path in (second.path / "experts").iterdir()}


def test_a_library_that_is_gone_is_missed(bench, tmp_path):
    import shutil

    run = bench.learn(start(bench, folder=tmp_path / "run"), upto=1)
    shutil.rmtree(library_of(run).path)
    later = start(bench, folder=tmp_path / "run")
    later.restore()
    with pytest.raises(StateError, match="strategy 'experts': the library isn't there any more"):
        learn_at(later, bench.tasks[1], 1)


def test_a_damaged_expert_is_named_and_the_others_answer(bench):
    run = bench.learn(start(bench, router=NEW))
    wanted = answers(run, bench.tasks[0])
    path = library_of(run).folder(1) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    again = start(bench, router=NEW)
    again.load_state(run.state())
    assert torch.equal(answers(again, bench.tasks[0]), wanted)
    with pytest.raises(StateError, match="expert 1: "):
        answers(again, bench.tasks[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"router": {"tau": 0.5}}, r"experts\.router\.tau: is unknown.*Keys: similarity, threshold"),
        ({"router": {"similarity": "cosin"}}, "similarity: is unknown.*Did you mean 'cosine'"),
        ({"signals": {"k_examples": 0}}, "k_examples: is out of range. Got 0"),
        ({"descriptions": {"a": " "}}, r"experts\.descriptions: gives a task no text. Got {'a': ' '}"),
        ({"oracle": {"a": 3}}, r"experts\.oracle: gives a task no text. Got {'a': 3}"),
        ({"compose_by": "bow"}, r"experts\.compose_by"),
        ({"compose": 1}, r"experts\.compose: is out of range. Got 1"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        Experts(**options)


def test_a_layer_that_is_not_there_gets_the_nearest(bench):
    run = start(bench, signals={"grad_sketch_layers": ["model.layers.1.self_attn.q_prj"]})
    with pytest.raises(ConfigError, match=r"Did you mean .model\.layers\.1\.self_attn\.q_proj"):
        learn_at(run, bench.tasks[0], 0)


def classify(number: int, labels: tuple[str, str] = ("yes", "no"), n: int = 16) -> Task:
    words = [("cat", "dog"), ("red", "blue"), ("good", "bad")][number]
    rows = [{"text": " ".join(["is", *["a"] * (i // 2), words[i % 2]]), "label": i % 2} for i in range(n)]
    return Task(f"classify_{number}", "classify", rows[:10], rows[10:], validation=rows[10:], labels=labels)


def test_a_classifier_is_lent_the_head_of_the_nearest_task(whole_bert, llama, bert):
    tasks = classify(0), classify(1), classify(2, ("up", "down"))
    bench = replace(make_bench("classify", llama, bert), config=ModelConfig(str(whole_bert), AdapterConfig(rank=4)))
    run = start(replace(bench, tasks=tasks), router=REUSE)
    learn_at(run, tasks[0], 0)
    assert learn_at(run, tasks[1], 1).n_steps == 0
    assert torch.equal(answers(run, tasks[0]), answers(run, replace(tasks[0], name="classify_1")))
    learn_at(run, tasks[2], 2)
    line = decided(run)
    assert (line["action"], len(library_of(run))) == ("fork", 2)
    assert line["reason"].endswith("at or above the bar of -1.00, but no expert has a head for its labels.")
    assert library_of(run).expert(1).labels == {"classify_2": ["up", "down"]}
    block = run.model.adapters.head.blocks[run.model.adapters.task_blocks["classify_2"]]
    assert torch.equal(library_of(run).head(1, "classify_2").weight, block.weight)
    again = replace(classify(2), name="again", description="classify_2")
    assert learn_at(run, again, 3).n_steps == 0
    line = decided(run)
    assert (line["action"], line["answers"], len(line["candidates"])) == ("reuse", 0, 1)  # though 1 is nearer


def test_a_base_that_lacks_weights_is_refused_at_once(bert, llama):
    with pytest.raises(ConfigError, match="strategy 'experts': its files lack weights"):
        make_bench("classify", llama, bert).run(["experts"])


def test_rows_without_task_names_are_answered_by_the_nearest_expert(bench):
    tasks = [judged(say(letters)) for letters in ("ab", "cd")]
    run = start(bench, router=NEW, signals={"text_inputs": True})
    for position, task in enumerate(tasks):
        learn_at(run, task, position)
    (strategy,) = run.strategies
    named = {task.name: task for task in tasks}
    found = score_rows(run, strategy.nearest_tasks, named, strategy.experts_)
    for name, one in found.items():
        assert one.right == 1.0
        assert one.routed.outcomes == pytest.approx(one.told.outcomes, abs=1e-5)
        assert one.told.value == pytest.approx(run.score(named[name]).value, abs=1e-5)
    rows = [row for pair in zip(*(task.evaluation for task in tasks), strict=True) for row in pair]
    told = {task.name: iter(predict(run, task, task.evaluation)) for task in tasks}
    assert predict_rows(run, strategy.nearest_tasks, rows) == [next(told[tasks[n % 2].name]) for n in range(len(rows))]
    wrong = score_rows(run, lambda run, rows: ["say ab"] * len(rows), named, strategy.experts_)
    assert (wrong["say ab"].right, wrong["say cd"].right) == (1.0, 0.0)
    assert wrong["say cd"].routed.value < wrong["say cd"].told.value


def say(letters: str) -> Task:
    """Answer with letters that each question begins with."""
    rows = [{"prompt": f"{letters * 4} {'t' * (1 + n % 3)}{n}=", "completion": letters[n % 2]} for n in range(16)]
    return Task(f"say {letters}", "prompt", rows[:12], rows[12:], max_new_tokens=2)


def test_a_trainer_keeps_its_library_in_its_folder(llama, bench, tmp_path):
    learner = {"epochs": 2, "batch_size": 4, "learning_rate": 0.03, "early_stopping": False}
    strategies = [{"name": "experts", "router": NEW}]
    trainer = ContinualTrainer(str(llama), strategies, learner, folder=tmp_path / "mine", device="cpu")
    for task in bench.tasks:
        options = {"metrics": list(task.metrics), "description": f"answers in {task.name}"}
        trainer.train_task(task.name, task.train, task.evaluation, options=options)
    wanted = [trainer.evaluate(task.name).value for task in bench.tasks]
    trainer.save(tmp_path / "mine")
    with pytest.raises(ConfigError, match="what experts keeps lies in the trainer's own folder"):
        trainer.save(tmp_path / "other")
    again = ContinualTrainer.load(tmp_path / "mine", device="cpu")
    assert [again.evaluate(task.name).value for task in bench.tasks] == wanted
    library = Library.open(tmp_path / "mine" / "library")
    assert [expert.description for expert in library.experts] == ["answers in say_0", "answers in say_1"]


def test_all_that_may_stand_beside_it_begin_with_each_new_expert(bench):
    names = ["experts"]
    for name in registry.names("strategy"):
        cls = registry.find("strategy", name)
        fits = name not in names and suits(cls, bench.kind)
        if fits and all(why_apart(cls, registry.find("strategy", one)) is None for one in names):
            names.append(name)
    assert len(names) > 8
    run = bench.run([{"name": "experts", "router": NEW}, *names[1:]], epochs=1, learning_rate=0.01)
    for position, task in enumerate((*bench.tasks, bench.tasks[0])):
        learn_at(run, task, position)
        assert all(torch.isfinite(tensor).all() for tensor in weights(run).values())
    assert [expert.tasks for expert in library_of(run).experts] == [("say_0",), ("say_1",)]
    assert len(library_of(run).expert(0).earlier) == 1
