"""Thresholds chosen on validation rows when a task was learned, kept with the model and used wherever it answers."""

from dataclasses import replace

import pytest

from everlearn.evaluation.heads import choose_thresholds
from everlearn.evaluation.predict import predict
from support.runs import make_bench


@pytest.mark.parametrize("threshold", ["one", "each"])
def test_thresholds_are_chosen_when_a_task_was_learned_and_come_back(threshold, llama, bert, tmp_path):
    bench = make_bench("multilabel", llama, bert)
    task = replace(bench.tasks[1], threshold=threshold, validation=bench.tasks[1].train[:8])
    bench = replace(bench, tasks=(bench.tasks[0], task))
    run = bench.learn(bench.run(folder=tmp_path, epochs=1))
    thresholds = run.model.adapters.thresholds
    assert set(thresholds) == {task.name}
    assert len(thresholds[task.name]) == 3
    assert (len(set(thresholds[task.name])) == 1) == (threshold == "one")
    chosen = dict(thresholds)
    best = "micro_f1" if threshold == "one" else "macro_f1"
    score = run.score(task, "validation").metrics[best]
    thresholds.clear()
    assert score >= run.score(task, "validation").metrics[best]
    thresholds.update(chosen)
    again = bench.run(folder=tmp_path)
    again.restore()
    assert again.model.adapters.thresholds == thresholds
    taken = predict(again, task, [row["text"] for row in task.evaluation])
    assert [", ".join(labels) or "none" for labels in taken] == list(run.score(task).answers)


def test_none_are_chosen_where_none_are_asked_for(llama, bert):
    bench = make_bench("multilabel", llama, bert)
    run = bench.run()
    run.add_labels(bench.tasks[0])
    choose_thresholds(run, replace(bench.tasks[0], validation=bench.tasks[0].train))
    assert run.model.adapters.thresholds == {}
