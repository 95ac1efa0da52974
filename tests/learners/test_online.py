"""One problem, one step: against a loop by hand; moments that go on; what is mixed in; rates."""

from dataclasses import dataclass, replace

import pytest
import torch

from everlearn.errors import ConfigError, StreamError
from everlearn.learners.online import Arriving, OnlineLearner
from everlearn.learners.rates import learning_rate_for
from everlearn.listener import Listener
from everlearn.models.objectives import mean_loss
from everlearn.strategy import Strategy
from everlearn.types import Examples, Group, Mixture
from everlearn.way import Run
from support.runs import make_bench
from support.sources import sum_row


class Recorded:
    """Hands out rows, and keeps the episodes."""

    def __init__(self, rows):
        self.waiting, self.episodes = list(rows), []

    def arriving(self):
        return Arriving(lambda: self.waiting.pop(0) if self.waiting else None, self.episodes.append)


def online_run(llama, strategies=(), **options) -> Run:
    run = make_bench("causal_lora", llama, llama).run(strategies)
    return replace(run, learner=OnlineLearner(**{"learning_rate": 0.01, **options}))


def learn(run: Run, rows, name="stream", **changes) -> list:
    recorded = Recorded(rows)
    task = replace(next(iter(run.tasks.values())), name=name, train=recorded.arriving(), **changes)
    run.learn(task)
    run.position += 1
    return recorded.episodes


def weights(run: Run) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}


ROWS = [sum_row(number) for number in range(6)]


def test_each_problem_is_one_adamw_step_on_its_right_answer(llama):
    run, by_hand = online_run(llama), online_run(llama)
    learn(run, ROWS[:3])
    task, model = next(iter(by_hand.tasks.values())), by_hand.model
    params = list(model.adapters.trainable().values())
    optimizer = torch.optim.AdamW(params, lr=0.01, weight_decay=0.01, fused=True)
    model.network.train()
    for row in ROWS[:3]:
        batch = model.objective.collate(model.objective.encode([row], task))
        mean_loss(model.objective.forward(model.network, batch)).backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    for name, wanted in weights(by_hand).items():
        assert torch.equal(weights(run)[name], wanted)


def test_answers_are_taken_before_and_after_the_step(llama):
    rows = [ROWS[0]] * 12
    episodes = learn(online_run(llama, learning_rate=0.03), rows)
    assert [episode.row for episode in episodes] == rows
    assert not episodes[0].right_before
    assert episodes[-1].right_before
    assert episodes[-1].before == "1"
    assert episodes[-1].right_after
    assert episodes[0].loss > episodes[-1].loss
    silent = learn(online_run(llama, answer_after=False), rows[:2])
    assert [(episode.after, episode.right_after) for episode in silent] == [(None, None)] * 2


def test_the_moments_go_on_from_task_to_task(llama):
    whole, parts = online_run(llama), online_run(llama)
    learn(whole, ROWS)
    learn(parts, ROWS[:2])
    learn(parts, ROWS[2:])
    for name, wanted in weights(whole).items():
        assert torch.equal(weights(parts)[name], wanted)


def test_past_problems_are_mixed_in_at_their_ratio_and_weight(llama):
    run = online_run(llama, [{"name": "replay", "ratio": 5.0, "weight": 0.3 / 0.7 / 5, "capacity": 10}])
    learn(run, ROWS[:5], "first")
    seen = []
    run.model.objective.before_forward = lambda batch: seen.append(len(batch["input_ids"]))
    learn(run, ROWS[5:])
    assert seen == [6]


def test_a_ratio_holds_over_tasks_that_are_shorter_than_a_whole_row(llama):
    run, seen = online_run(llama, [{"name": "replay", "ratio": 0.4}], answer_after=False), []
    run.model.objective.before_forward = lambda batch: seen.append(len(batch["input_ids"]))
    for number in range(6):
        learn(run, ROWS[number : number + 1], str(number))
    assert seen == [1, 1, 2, 1, 2, 1]


def test_the_rate_falls_with_difficulty_where_asked(llama):
    episodes = learn(online_run(llama, rate_by_difficulty=True, learning_rate=0.01), ROWS[:5])
    assert [episode.learning_rate for episode in episodes] == pytest.approx([0.01, 0.009, 0.008, 0.007, 0.006])
    with pytest.raises(StreamError, match=r"learner.rate_by_difficulty: a row has no difficulty"):
        learn(online_run(llama, rate_by_difficulty=True), [{"prompt": "1", "completion": "2"}])


def test_the_rate_is_that_of_one_row_where_none_is_given(llama):
    run = online_run(llama, [{"name": "replay", "ratio": 3}], learning_rate="auto", answer_after=False)
    episodes = learn(run, ROWS[:3], "first") + learn(run, ROWS[3:], "second")
    assert [episode.learning_rate for episode in episodes] == [
        pytest.approx(learning_rate_for(run.model, 1), rel=0.05)
    ] * 6
    assert learning_rate_for(run.model, 1) < learning_rate_for(run.model, 4)


def test_where_steps_are_learned_the_rate_is_that_of_eight_rows(llama):
    run = online_run(llama, learning_rate="auto", learn="steps", answer_after=False)
    (episode,) = learn(run, [{**ROWS[0], "explanation": "0, 1"}])
    assert episode.learning_rate == pytest.approx(learning_rate_for(run.model, 8), rel=0.05)


class Told(Listener):
    """Keeps what the user is told."""

    def __init__(self):
        self.texts = []

    def inform(self, text):
        self.texts.append(text)


def test_what_was_chosen_is_told_where_it_was_left_open(llama):
    chosen = replace(online_run(llama, learning_rate="auto", learn="auto"), listener=Told())
    chosen.model.objective.in_steps = True
    chosen.learner.tell_choices(chosen)
    rate, steps = chosen.listener.texts
    assert float(rate.removeprefix("Learning rate ").removesuffix(".")) == pytest.approx(
        learning_rate_for(chosen.model, 8), rel=0.05
    )
    assert "learner.learn: answer" in steps
    given = replace(online_run(llama, learn="steps"), listener=Told())
    given.learner.tell_choices(given)
    assert given.listener.texts == []


def test_several_updates_a_problem_are_several_steps(llama):
    run = online_run(llama, updates=3)
    assert len(learn(run, ROWS[:2])) == 2
    moments = run.learner.moments_
    assert {int(state["step"]) for state in moments.values()} == {6}


def test_each_update_is_learned_with_other_past_problems(llama):
    run = online_run(llama, [{"name": "replay", "ratio": 2.0}], updates=3, answer_after=False)
    learn(run, ROWS[:5], "first")
    seen = []
    run.model.objective.before_forward = lambda batch: seen.append(batch["input_ids"].tolist())
    learn(run, ROWS[5:], "second")
    assert [len(rows) for rows in seen] == [3] * 3
    assert len({str(rows[0]) for rows in seen}) == 1
    assert len({str(row) for rows in seen for row in rows[1:]}) == 5  # six draws, in passes over the five


def test_with_steps_an_explained_problem_is_learned_as_its_steps_and_the_answer(llama):
    explained = [{**row, "explanation": f"{row['prompt'][0]} and then"} for row in ROWS[:3]]
    worked = [{**row, "completion": f"{row['explanation']}\nAnswer: {row['completion']}"} for row in explained]
    runs = {name: online_run(llama, learn=name) for name in ("steps", "answer")}
    wanted = {name: online_run(llama, learn="answer") for name in runs}
    for name, run in runs.items():
        assert [episode.row for episode in learn(run, explained)] == explained
        learn(wanted[name], worked if name == "steps" else ROWS[:3])
        assert all(torch.equal(weights(run)[key], one) for key, one in weights(wanted[name]).items())
    some = next(iter(weights(runs["steps"])))
    assert not torch.equal(weights(runs["steps"])[some], weights(runs["answer"])[some])


def test_an_answer_with_steps_is_right_by_what_stands_behind_them(llama):
    rows = [{**ROWS[0], "explanation": "0, 1"}] * 40
    episodes = learn(online_run(llama, learning_rate=0.03, learn="steps"), rows, evaluation=rows)
    assert episodes[-1].before == "0, 1\nAnswer: 1"
    assert episodes[-1].right_before
    assert not episodes[0].right_before


@dataclass
class Instead(Strategy):
    """Trains on other rows than those that come."""

    def train_data(self, mixture, run):
        return Mixture((Group((Examples(run.tasks[run.current], ROWS),)),))


def test_a_method_that_keeps_new_problems_out_is_refused(llama):
    run = online_run(llama, [Instead()])
    with pytest.raises(ConfigError, match="strategies: one of them keeps new problems out"):
        learn(run, ROWS[:3])


def test_bad_options_name_the_field():
    with pytest.raises(ConfigError, match=r"learner.updates: is out of range. Got 0"):
        OnlineLearner(updates=0)
    with pytest.raises(ConfigError, match=r"learner.precision: is unknown. Got 'fp8'"):
        OnlineLearner(precision="fp8")
    with pytest.raises(ConfigError, match=r"learner.learn: is unknown. Got 'hints'"):
        OnlineLearner(learn="hints")
