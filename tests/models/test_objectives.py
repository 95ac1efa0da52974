from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from everlearn.errors import StreamError
from everlearn.learners.loader import EncodedMixture
from everlearn.models.adapters import Scale
from everlearn.models.causal import CausalObjective
from everlearn.models.objectives import IGNORED, item_losses, mean_loss
from everlearn.types import Examples, Group, Mixture, Outputs
from support.models import byte_tokenizer
from support.runs import make_bench
from support.tasks import classify_task, prompt_task, regression_task, tag_task, tensor_task, text_task

PAD, BOS, EOS = 0, 1, 2


def causal(max_length=64):
    return CausalObjective(byte_tokenizer(), max_length)


def text_of(ids):
    return byte_tokenizer().decode(ids, skip_special_tokens=True)


def run_with_labels(kind, llama, bert, head="task"):
    bench = make_bench(kind, llama, bert, head=head)
    run = bench.run()
    for task in bench.tasks:
        run.add_labels(task)
    return bench, run.model


def batch_of(model, *examples):
    encoded = EncodedMixture(Mixture((Group(tuple(Examples(task, rows) for task, rows in examples)),)), model.objective)
    return encoded.__getitems__([(0, row) for row in range(len(encoded))])


def test_only_the_completion_and_the_end_are_learned():
    task = prompt_task(0, n_train=3)
    for row, feature in zip(task.train, causal().encode(task.train, task), strict=True):
        learned = [i for i in feature["labels"] if i != IGNORED]
        assert feature["input_ids"][0] == BOS
        assert learned[-1] == EOS
        assert text_of(learned) == row["completion"]
        assert text_of(feature["input_ids"]) == row["prompt"] + row["completion"]
        assert feature["input_ids"][-len(learned) :] == learned


def test_every_token_of_a_text_is_learned():
    task = text_task(0, n_train=2)
    for feature in causal().encode(task.train, task):
        assert feature["labels"] == feature["input_ids"]
        assert (feature["input_ids"][0], feature["input_ids"][-1]) == (BOS, EOS)


@pytest.mark.parametrize(
    ("prompt", "completion", "max_length", "kept_prompt", "kept_completion"),
    [("abcdef", "xy", 6, "ef", "xy"), ("abc", "uvwxyz", 5, "c", "uvw"), ("ab", "xy", 64, "ab", "xy")],
)
def test_too_long_rows_lose_the_prompt_s_start_then_the_completion_s_end(
    prompt, completion, max_length, kept_prompt, kept_completion
):
    task = replace(prompt_task(0), train=[{"prompt": prompt, "completion": completion}])
    (feature,) = causal(max_length).encode(task.train, task)
    n_learned = sum(label != IGNORED for label in feature["labels"])
    assert len(feature["input_ids"]) <= max_length
    assert feature["input_ids"][0] == BOS
    assert text_of(feature["input_ids"][:-n_learned]) == kept_prompt
    assert text_of(feature["labels"][-n_learned:]) == kept_completion


def test_messages_need_a_chat_template_and_their_last_one_is_learned():
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]
    task = replace(prompt_task(0), train=[{"messages": messages}])
    with pytest.raises(StreamError, match="no chat template"):
        causal().encode(task.train, task)
    objective = causal()
    objective.tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    objective = CausalObjective(objective.tokenizer, 64)
    assert objective.prompt_and_completion(task.train[0]) == ("user:hi;assistant:", "yo;")


def test_padding_is_neither_attended_nor_learned(llama, bert):
    _, model = run_with_labels("causal_lora", llama, bert)
    task = prompt_task(0, n_train=3)
    batch = batch_of(model, (task, task.train))
    lengths = [len(f["input_ids"]) for f in model.objective.encode(task.train, task)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    with torch.no_grad(), model.evaluating():
        together = model.objective.forward(model.network, batch)
        alone = [model.objective.forward(model.network, batch_of(model, (task, [row]))) for row in task.train]
    torch.testing.assert_close(together.logits, torch.cat([one.logits for one in alone]), rtol=1e-4, atol=1e-5)
    assert together.owners.bincount().tolist() == [len(one.targets) for one in alone]
    assert model.objective.n_items(batch) == len(together.targets)


def test_positions_are_shifted_and_the_loss_is_the_model_s_own(llama, bert):
    _, model = run_with_labels("causal_lora", llama, bert)
    task = prompt_task(0, n_train=4)
    batch = batch_of(model, (task, task.train))
    with torch.no_grad(), model.evaluating():
        ours = mean_loss(model.objective.forward(model.network, batch))
        theirs = model.network(**batch).loss
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_losses_per_item():
    logits, targets = torch.randn(4, 3), torch.tensor([0, 2, 1, 0])
    outputs = Outputs(logits, targets, torch.arange(4))
    wanted = -F.log_softmax(logits, -1)[torch.arange(4), targets]
    torch.testing.assert_close(item_losses(outputs), wanted)
    torch.testing.assert_close(mean_loss(outputs), wanted.mean())
    real = Outputs(torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [2.0]]), torch.arange(2))
    for targets in (real.targets, real.targets[:, 0]):
        assert item_losses(replace(real, targets=targets)).tolist() == [2.0, 0.0]
        assert mean_loss(replace(real, targets=targets)).item() == 1.0
    pairs = Outputs(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.0]]), torch.arange(1))
    assert item_losses(pairs).tolist() == [4.0]


def mixed_and_alone(bench, model, rows=None):
    """Return what is put out for rows (three) of the second and the first task in one batch, and in one for each."""
    parts = [(task, rows[task.name] if rows else task.train[:3]) for task in reversed(bench.tasks)]
    with torch.no_grad(), model.evaluating():
        mixed = model.objective.forward(model.network, batch_of(model, *parts))
        alone = [model.objective.forward(model.network, batch_of(model, part)) for part in parts]
    return mixed, alone


@pytest.mark.parametrize("head", ["task", "shared"])
def test_numbers_are_learned_in_deviations_from_their_task_s_mean(head, llama, bert):
    bench, model = run_with_labels("score", llama, bert, head)
    first, second = bench.tasks
    mixed, alone = mixed_and_alone(bench, model)
    assert mixed.logits.shape == (6, 1)
    assert mixed.family == "normal"
    torch.testing.assert_close(mixed.logits, torch.cat([one.logits for one in alone]), rtol=1e-4, atol=1e-5)
    for task, targets in ((second, mixed.targets[:3]), (first, mixed.targets[3:])):
        numbers = torch.tensor([row["score"] for row in task.train])
        expected = ((numbers - numbers.mean()) / numbers.std(correction=0))[:3]
        torch.testing.assert_close(targets, expected, rtol=1e-5, atol=1e-6)
    errors = (mixed.logits[:, 0] - mixed.targets).square() / 2
    torch.testing.assert_close(item_losses(mixed), errors)


@pytest.mark.parametrize("head", ["task", "shared"])
def test_several_labels_of_tasks_mixed_in_a_batch_are_each_there_or_not(head, llama, bert):
    bench, model = run_with_labels("multilabel", llama, bert, head)
    first, second = bench.tasks
    rows = {task.name: task.train[4:8] for task in bench.tasks}
    mixed, alone = mixed_and_alone(bench, model, rows)
    assert (mixed.logits.shape, mixed.family) == ((8, 3), "bernoulli")
    torch.testing.assert_close(mixed.logits[:4], alone[0].logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed.logits[4:, :2], alone[1].logits, rtol=1e-4, atol=1e-5)
    for row, targets in zip([*rows[second.name], *rows[first.name]], mixed.targets.tolist(), strict=True):
        assert [label for label, there in enumerate(targets) if there] == row["labels"]
    by_label = F.binary_cross_entropy_with_logits(alone[0].logits, alone[0].targets, reduction="none")
    torch.testing.assert_close(item_losses(mixed)[:4], by_label.sum(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(item_losses(mixed)[4:], item_losses(alone[1]), rtol=1e-4, atol=1e-5)
    assert item_losses(mixed.at(mixed.owners == 5)).tolist() == pytest.approx([item_losses(mixed)[5].item()])


def test_numbers_that_are_all_alike_or_none_have_a_scale():
    assert Scale.of([]) == Scale(0.0, 1.0)
    assert Scale.of([7.0, 7.0]) == Scale(7.0, 1.0)
    scale = Scale.of([10.0, 30.0])
    assert [scale.standardised(30.0), scale.restored(-1.0)] == [1.0, 10.0]


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_tasks_mixed_in_a_batch_answer_as_they_do_alone_with_a_head_each(kind, llama, bert):
    bench, model = run_with_labels(kind, llama, bert)
    first, second = bench.tasks
    mixed, alone = mixed_and_alone(bench, model)
    sizes = {task.name: len(task.labels) for task in bench.tasks}
    assert mixed.logits.shape[1] == sum(sizes.values())
    start = {first.name: 0, second.name: sizes[first.name]}
    n = len(alone[0].targets)
    for task, one, rows in ((second, alone[0], slice(0, n)), (first, alone[1], slice(n, None))):
        low, high = start[task.name], start[task.name] + sizes[task.name]
        torch.testing.assert_close(mixed.logits[rows, low:high], one.logits, rtol=1e-4, atol=1e-5)
        assert torch.equal(mixed.targets[rows] - low, one.targets)
        hidden = torch.cat([mixed.logits[rows, :low], mixed.logits[rows, high:]], 1)
        assert (hidden < -1e30).all(), "other tasks' classes have probability 0"
        assert torch.isfinite(hidden).all()
    losses = torch.cat([item_losses(one) for one in alone])
    torch.testing.assert_close(item_losses(mixed), losses, rtol=1e-4, atol=1e-5)


def test_one_task_touches_only_its_own_head(llama, bert):
    bench, model = run_with_labels("classify", llama, bert)
    batch = batch_of(model, (bench.tasks[1], bench.tasks[1].train))
    mean_loss(model.objective.forward(model.network, batch)).backward()
    assert [block.weight.grad is not None for block in model.adapters.head.blocks] == [False, True]


@pytest.mark.parametrize("kind", ["classify", "tag"])
def test_a_shared_head_has_a_column_for_each_label(kind, llama, bert):
    bench, model = run_with_labels(kind, llama, bert, head="shared")
    columns = model.adapters.columns
    for task in bench.tasks:
        outputs = model.objective.forward(model.network, batch_of(model, (task, task.train)))
        assert outputs.logits.shape[1] == len(columns) == len({label for t in bench.tasks for label in t.labels})
        assert set(outputs.targets.tolist()) <= {columns[label] for label in task.labels}


@pytest.mark.parametrize("head", ["task", "shared"])
@pytest.mark.parametrize("kind", ["classify", "tag", "plain"])
def test_past_logits_are_those_of_earlier_tasks_classes_at_the_same_items(kind, head, llama, bert):
    bench, model = run_with_labels(kind, llama, bert, head=head)
    first, second = bench.tasks
    batch = batch_of(model, (second, second.train[:4]))
    outputs = model.objective.forward(model.network, batch, (first.name,))
    (past,) = outputs.past
    assert past.shape == (len(outputs.targets), len(first.labels))
    assert model.objective.forward(model.network, batch).past == []


def test_tags_stand_at_the_first_token_of_each_word(llama, bert):
    _, model = run_with_labels("tag", llama, bert)
    task = replace(tag_task(0), train=[{"tokens": ["anna", "cats", "is"], "tags": [1, 2, 0]}])
    (feature,) = model.objective.encode(task.train, task)
    tokens = model.tokenizer.convert_ids_to_tokens(feature["input_ids"])
    assert tokens == ["[CLS]", "anna", "cat", "##s", "is", "[SEP]"]
    assert feature["labels"] == [IGNORED, 1, 2, IGNORED, 0, IGNORED]


def test_pairs_of_texts_have_segments(llama, bert):
    bench, model = run_with_labels("classify", llama, bert)
    rows = [{"text": "red", "text_pair": "green blue", "label": 1}, {"text": "one", "text_pair": "two", "label": 0}]
    features = model.objective.encode(rows, bench.tasks[0])
    assert features[0]["token_type_ids"] == [0, 0, 0, 1, 1, 1]
    assert [feature["labels"] for feature in features] == [[1], [0]]


def test_long_texts_are_cut(llama, bert):
    _, model = run_with_labels("classify", llama, bert)
    (feature,) = model.objective.encode([{"text": "red " * 100, "label": 0}], classify_task(0))
    assert len(feature["input_ids"]) == model.objective.max_length == 32


@pytest.mark.parametrize("head", ["task", "shared"])
def test_tensors_answer_among_their_own_columns_or_all(head, llama, bert):
    bench, model = run_with_labels("plain", llama, bert, head=head)
    batch = batch_of(model, *((task, task.train[:4]) for task in bench.tasks))
    outputs = model.objective.forward(model.network, batch)
    assert outputs.targets.tolist() == [
        *bench.tasks[0].train.y[:4].tolist(),
        *(bench.tasks[1].train.y[:4] + 2).tolist(),
    ]
    hidden = outputs.logits < -1e30
    assert hidden[:4].tolist() == [[False, False, head == "task", head == "task"]] * 4
    assert hidden[4:].tolist() == [[head == "task", head == "task", False, False]] * 4


def test_tensors_without_labels_are_columns_themselves_and_may_be_real(llama, bert):
    bench = make_bench("plain", llama, bert)
    model = replace(bench, tasks=(tensor_task(0, labelled=False),)).run().model
    outputs = model.objective.forward(
        model.network, batch_of(model, (tensor_task(0, labelled=False), tensor_task(0).train))
    )
    assert torch.equal(outputs.targets, tensor_task(0).train.y)
    real = replace(bench, tasks=(regression_task(0),)).run().model
    batch = batch_of(real, (regression_task(0), regression_task(0).train))
    outputs = real.objective.forward(real.network, batch)
    wanted = 0.5 * (outputs.logits - regression_task(0).train.y).square().mean()
    torch.testing.assert_close(mean_loss(outputs), wanted)
