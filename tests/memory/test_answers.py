import pytest
import torch

from everlearn.learners.loader import row_batches
from everlearn.memory.answers import AnswerTable, cut_answers, join_answers, record_answers
from support.runs import make_bench


def recorded(bench, top_k, batch_size=5):
    run = bench.run()
    (answers,) = record_answers(
        run,
        bench.tasks[0],
        bench.tasks[0].train,
        score=lambda outputs: [outputs.logits],
        top_k=top_k,
        batch_size=batch_size,
    )
    return run, answers


def answers_to(run, task):
    """Return the outputs on a task's rows, all in one batch."""
    (_, batch), *_ = row_batches(run.model.objective, task.train, task, len(task.train))
    with torch.no_grad(), run.model.evaluating():
        return run.model.objective.forward(run.model.network, batch)


@pytest.mark.parametrize("batch_size", [1, 5, 12])
def test_of_a_language_model_the_largest_logits_at_each_target_are_kept(llama, bert, batch_size):
    bench = make_bench("causal_lora", llama, bert)
    run, answers = recorded(bench, 4, batch_size)
    outputs = answers_to(run, bench.tasks[0])
    assert answers["values"].dtype == torch.float16
    assert answers["values"].shape == (len(outputs.targets), 5)
    assert answers["columns"].dtype == torch.int32
    assert answers["counts"].tolist() == torch.bincount(outputs.owners).tolist()
    torch.testing.assert_close(answers["values"][:, :4].float(), outputs.logits.topk(4).values, rtol=2e-3, atol=1e-3)


def test_of_a_classifier_all_are_kept_exactly(llama, bert):
    bench = make_bench("plain", llama, bert, head="shared")
    run, answers = recorded(bench, None, 24)
    assert answers["values"].dtype == torch.float32
    assert torch.equal(answers["values"], answers_to(run, bench.tasks[0]).logits)


@pytest.mark.parametrize(("kind", "top_k"), [("causal_lora", 4), ("plain", None)])
def test_answers_are_found_by_row_and_compared_outcome_by_outcome(llama, bert, kind, top_k):
    bench = make_bench(kind, llama, bert, head="shared")
    run, answers = recorded(bench, top_k)
    outputs = answers_to(run, bench.tasks[0])
    rows = [7, 2, 3]
    logits = torch.cat([outputs.logits[outputs.owners == row] for row in rows])
    before, now, known = AnswerTable(answers).compare(rows, logits)
    torch.testing.assert_close(before, now, rtol=2e-3, atol=2e-3)
    assert known.all()
    picked = AnswerTable(AnswerTable(answers).pick(rows))
    again, *_ = picked.compare([0, 1, 2], logits)
    assert torch.equal(again, before)
    assert picked.n_rows == 3


def test_answers_of_unequal_width_are_filled_up_with_what_was_not_recorded():
    def of(n_classes, n):
        values = torch.arange(n * n_classes).view(n, n_classes).float()
        columns = torch.arange(n_classes, dtype=torch.int32).expand(n, -1)
        return {"values": values, "columns": columns, "counts": torch.ones(n, dtype=torch.int32)}

    table = AnswerTable(join_answers([of(2, 2), of(3, 1)]))
    before, now, known = table.compare([2, 0], torch.tensor([[5.0, 6, 7, 8], [1, 2, 3, 4]]))
    assert before.tolist() == [[0, 1, 2], [0, 1, 0]]
    assert known.tolist() == [[True] * 3, [True, True, False]]
    assert now[0].tolist() == [5, 6, 7]
    assert now[1, :2].tolist() == [1, 2]


@pytest.mark.parametrize("before", [40, 10**6])
def test_cut_answers_are_those_recorded_with_fewer_classes(before, llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    cut = cut_answers(recorded(bench, before)[1], 3)
    wanted = recorded(bench, 3)[1]
    assert (cut["columns"] == wanted["columns"]).float().mean() > 0.9  # float16 makes some of them equal
    torch.testing.assert_close(cut["values"], wanted["values"], rtol=2e-3, atol=2e-3)
    assert cut_answers(wanted, 3) is wanted


def test_answers_cut_at_different_numbers_of_classes_are_compared_with_the_same_rest(llama, bert):
    bench = make_bench("causal_lora", llama, bert)
    pieces = [recorded(bench, top_k) for top_k in (3, 40, 10**6)]
    outputs = answers_to(pieces[0][0], bench.tasks[0])
    table = AnswerTable(join_answers([answers for _, answers in pieces]))
    before, now, known = table.compare(range(36), outputs.logits.repeat(3, 1))
    torch.testing.assert_close(before[known], now[known], rtol=2e-3, atol=2e-3)
    n = len(outputs.targets)
    assert known[:n].sum(1).unique().tolist() == [4]
    assert known[n : 2 * n].sum(1).unique().tolist() == [41]


def test_no_rows_have_no_answers(llama, bert):
    run = make_bench("plain", llama, bert).run()
    task = make_bench("plain", llama, bert).tasks[0]
    assert record_answers(run, task, task.train[:0], score=lambda o: [o.logits], top_k=None, batch_size=4) == []
