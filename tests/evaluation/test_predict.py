"""Answers to rows without answers: as each kind of task has them, and equal to those that scoring judges."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, TensorDataset

from everlearn import ContinualTrainer
from everlearn.errors import ConfigError, StreamError
from everlearn.evaluation.predict import uncertainty
from everlearn.evaluation.surest import sureness
from everlearn.listener import Listener
from support.tasks import rows_of_kind

pytestmark = pytest.mark.filterwarnings("ignore:Task .* nothing was learned", "ignore:task .*", "ignore:Task .*cut")
LEARNER = {"epochs": 3, "batch_size": 4, "learning_rate": 3e-3}


def moods(words: tuple[str, str], n: int = 12) -> list[dict]:
    return [{"text": " ".join(["is"] * (i + 1) + [words[i % 2]]), "label": words[i % 2]} for i in range(n)]


def test_texts_that_are_judged_are_those_predicted(llama):
    rows = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(24)]
    trainer = ContinualTrainer(str(llama), learner={**LEARNER, "epochs": 8})
    score = trainer.train_task("sums", rows[:18], rows[18:])
    answers = trainer.predict([{"prompt": row["prompt"]} for row in rows[18:]])
    assert answers == trainer.predict([row["prompt"] for row in rows[18:]])
    hits = [float(a.strip() == row["completion"]) for a, row in zip(answers, rows[18:], strict=True)]
    assert tuple(hits) == score.outcomes
    assert all(len(a) <= 2 for a in trainer.predict(["1+1=", "2+1="], max_new_tokens=2))
    with pytest.raises(StreamError, match=r"predict: is given no list of rows. Got '1\+1='"):
        trainer.predict("1+1=")
    with pytest.raises(StreamError, match=r"predict: row 1: is no prompt row, as task 'sums' has them.*Give texts"):
        trainer.predict(["1+1=", {"question": "2+1="}])
    assert trainer.predict([]) == []


def test_running_text_is_gone_on_with(llama):
    trainer = ContinualTrainer(str(llama), learner={**LEARNER, "epochs": 1})
    texts = [{"text": f"line {n} of a text that goes on"} for n in range(8)]
    trainer.train_task("texts", texts[:6], texts[6:])
    assert [len(answer) <= 6 for answer in trainer.predict(["line 3 of"], max_new_tokens=6)] == [True]
    assert trainer.predict([texts[0]]) == trainer.predict([texts[0]["text"]])


def test_labels_of_each_task_s_own_head(bert):
    trainer = ContinualTrainer(str(bert), learner=LEARNER)
    first, second = moods(("bad", "good")), moods(("dull", "bright"))
    trainer.train_task("mood", first[:8], first[8:])
    assert set(trainer.predict([row["text"] for row in first])) <= {"bad", "good"}
    score = trainer.train_task("light", second[:8], second[8:])
    labels = trainer.predict([{"text": row["text"]} for row in second[8:]], task="light")
    assert [float(a == row["label"]) for a, row in zip(labels, second[8:], strict=True)] == list(score.outcomes)
    assert set(trainer.predict(["is is good"], task="mood")) <= {"bad", "good"}
    with pytest.raises(ConfigError, match=r"Got 'moot'. Did you mean 'mood'"):
        trainer.predict(["is"], task="moot")


class Told(Listener):
    def __init__(self) -> None:
        self.sentences: list[str] = []

    def inform(self, text: str) -> None:
        self.sentences.append(text)


@pytest.mark.parametrize("head", ["task", "words"])
def test_without_a_task_s_name_the_surest_head_answers_and_that_is_told(head, bert, llama):
    listener = Told()
    model = {"name": str(llama if head == "words" else bert), "head": head}
    trainer = ContinualTrainer(model, learner=LEARNER, listener=listener)
    words = {"mood": ("bad", "good"), "light": ("dull", "bright")}
    for name, pair in words.items():
        trainer.train_task(name, moods(pair)[:8], moods(pair)[8:])
    rows = [row["text"] for pair in words.values() for row in moods(pair)[8:]]
    listener.sentences.clear()
    found, chosen = trainer.predict(rows), trainer.tasks_of(rows)
    for row, label, name in zip(rows, found, chosen, strict=True):
        assert label in words[name]
        assert [label] == trainer.predict([row], task=name)
        sure = {one: sureness(trainer.run, trainer.run.tasks[one], [row])[0] for one in words}
        assert sure[name] == max(sure.values())
        assert all(0 <= value <= 1 for value in sure.values())
    counts = ", ".join(f"{name} {chosen.count(name)}" for name in dict.fromkeys(chosen))
    assert listener.sentences == [f"No task was named; rows are answered as by the head that is surest: {counts}."]
    with pytest.raises(StreamError, match="predict: row 0: is no classify row"):
        trainer.predict([3])


def test_numbers_tell_no_task(bert):
    trainer = ContinualTrainer(str(bert), learner={**LEARNER, "epochs": 1})
    for number in range(2):
        rows = rows_of_kind("score", number)
        trainer.train_task(f"task {number}", rows[:12], rows[12:])
    with pytest.raises(ConfigError, match=r"answers of this kind don't tell how sure.*Got 'score'.*Name it: task 0"):
        trainer.predict(["is a one"])


def test_labels_of_a_shared_head(bert):
    trainer = ContinualTrainer({"name": str(bert), "head": "shared"}, learner=LEARNER)
    for name, words in (("mood", ("bad", "good")), ("light", ("dull", "bright"))):
        trainer.train_task(name, moods(words)[:8], moods(words)[8:])
    assert set(trainer.predict(["is is good", "is dull"])) <= {"bad", "good", "dull", "bright"}


def test_a_tag_for_each_word_within_the_context(bert):
    rows = [{"tokens": ["is", "Paris"] * (1 + n % 3), "tags": ["O", "B-LOC"] * (1 + n % 3)} for n in range(4)]
    rows += [{"tokens": ["is"] * n + ["Rome"], "tags": ["O"] * n + ["B-LOC"]} for n in range(1, 5)]
    trainer = ContinualTrainer({"name": str(bert), "max_length": 16}, learner=LEARNER)
    trainer.train_task("places", rows[:3] + rows[4:7], [rows[7]])
    short, long = trainer.predict([["is", "Paris"], {"tokens": ["is"] * 40}])
    assert len(short) == 2
    assert set(short) <= {"O", "B-LOC"}
    assert len(long) == 40
    assert long[0] in ("O", "B-LOC")
    assert long[-1] is None


def test_outputs_of_a_module_from_tensors_lists_and_loaders():
    torch.manual_seed(0)
    network = nn.Linear(4, 2)
    x = torch.randn(40, 4)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    trainer = ContinualTrainer(network, learner={"epochs": 1})
    trainer.train_task("a", train_loader=DataLoader(data, batch_size=8))
    expected = network(x).detach()
    torch.testing.assert_close(trainer.predict(x), expected)
    torch.testing.assert_close(trainer.predict(x.double()), expected)
    torch.testing.assert_close(trainer.predict(list(x)), expected)
    torch.testing.assert_close(trainer.predict(DataLoader(data, batch_size=7)), expected)
    torch.testing.assert_close(trainer.predict(list(x.numpy())), expected)
    torch.testing.assert_close(trainer.predict(x.tolist()), expected)
    assert network.training


def test_rows_that_a_module_can_t_take_are_refused():
    trainer = ContinualTrainer(nn.Sequential(nn.Linear(4, 2)), learner={"epochs": 1})
    x = torch.randn(8, 4)
    loader = DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), batch_size=4)
    trainer.train_task("a", train_loader=loader)
    for rows, message in {
        "width": (x[:, :3], "predict: the model can't take its inputs"),
        "ints": (torch.ones(2, 4, dtype=torch.long), "predict: the model can't take its inputs"),
        "none": (x[:0], "predict: is given no row"),
        "no list": ([], "predict: is given no row"),
        "no batch": (DataLoader([]), "predict: is given no row"),
        "texts": (["hi"], "predict: its rows make no tensor"),
        "ragged": ([[1.0] * 4, [1.0] * 3], "predict: its rows make no tensor"),
        "mixed": ([x[0], None], "predict: its rows make no tensor"),
        "pairs": ([(x[0], 1)], "predict: its rows make no tensor"),
        "dataset": (loader.dataset, "predict: is given no list of rows"),
        "nothing": (None, "predict: is given no list of rows"),
        "number": (5, "predict: is given no list of rows"),
    }.values():
        with pytest.raises(StreamError, match=message):
            trainer.predict(rows)
    with pytest.raises(ConfigError, match="max_new_tokens: is out of range"):
        trainer.predict(x, max_new_tokens=0)


def test_samples_go_through_the_task_s_collate_fn():
    def pad(rows):
        return pad_sequence([x for x, _ in rows], batch_first=True), torch.tensor([int(y) for _, y in rows])

    network = nn.Sequential(
        nn.Embedding(9, 4, padding_idx=0), nn.AdaptiveAvgPool2d((1, 4)), nn.Flatten(), nn.Linear(4, 2)
    )
    rows = [(torch.arange(1, 3 + n % 5), n % 2) for n in range(10)]
    trainer = ContinualTrainer(network, learner={"epochs": 1})
    trainer.train_task("a", train_loader=DataLoader(rows, 5, collate_fn=pad))
    x, _ = pad(rows[:3])
    torch.testing.assert_close(trainer.predict([x for x, _ in rows[:3]]), network(x).detach())


def entropy_of(logits: torch.Tensor) -> torch.Tensor:
    return torch.distributions.Categorical(logits=logits).entropy()


def test_uncertainty_is_the_entropy_of_what_is_predicted(bert, llama):
    trainer = ContinualTrainer(str(bert), learner=LEARNER)
    trainer.train_task("mood", moods(("bad", "good"))[:8], moods(("bad", "good"))[8:])
    run, task = trainer.run, trainer.run.tasks["mood"]
    inputs = run.model.tokenizer(["is good"], return_tensors="pt")
    network = run.model.network.eval()
    found = uncertainty(run, task, ["is good", {"text": "is is bad"}])
    torch.testing.assert_close(found[0], entropy_of(network(**inputs).logits)[0])
    assert found.shape == (2,)
    with pytest.raises(StreamError, match="is given no list of rows"):
        uncertainty(run, task, "is good")

    rows = [{"tokens": ["is", "Paris"] * (1 + n % 3), "tags": ["O", "B-LOC"] * (1 + n % 3)} for n in range(4)]
    rows += [{"tokens": ["is"] * n + ["Rome"], "tags": ["O"] * n + ["B-LOC"]} for n in range(1, 5)]
    tagger = ContinualTrainer(str(bert), learner=LEARNER)
    tagger.train_task("places", rows[:3] + rows[4:7], [rows[7]])
    assert (uncertainty(tagger.run, tagger.run.tasks["places"], [["is", "Paris"], ["Rome"]]) > 0).all()

    writer = ContinualTrainer(str(llama), learner=LEARNER)
    sums = [{"prompt": f"{n}+1=", "completion": str(n + 1)} for n in range(8)]
    writer.train_task("sums", sums[:6], sums[6:])
    run, task = writer.run, writer.run.tasks["sums"]
    (answer,) = writer.predict(["7+1="])
    inputs = run.model.tokenizer([f"7+1={answer}"], return_tensors="pt", return_token_type_ids=False)
    n_asked = len(run.model.tokenizer("7+1=")["input_ids"])
    logits = run.model.network.eval()(**inputs).logits[0, n_asked - 1 :]
    torch.testing.assert_close(uncertainty(run, task, ["7+1="])[0], entropy_of(logits).mean())
    assert uncertainty(run, task, [{"prompt": "7+1=", "completion": "another"}]) == uncertainty(run, task, ["7+1="])


def test_uncertainty_of_several_labels_and_of_label_words(bert, llama):
    rows = [
        {"text": " ".join(["is"] * n + ["good", "bad"][: n % 3]), "labels": ["a", "b"][: n % 3]} for n in range(1, 9)
    ]
    trainer = ContinualTrainer(str(bert), learner=LEARNER)
    trainer.train_task("marks", rows[:6], rows[6:])
    run, task = trainer.run, trainer.run.tasks["marks"]
    logits = run.model.network.eval()(**run.model.tokenizer(["is good"], return_tensors="pt")).logits[0]
    expected = torch.distributions.Bernoulli(logits=logits).entropy().sum()
    torch.testing.assert_close(uncertainty(run, task, ["is good"])[0], expected, rtol=1e-4, atol=1e-5)
    writer = ContinualTrainer({"name": str(llama), "head": "words"}, learner={**LEARNER, "epochs": 1})
    short = [{"text": f"{n} {'ab'[n % 2]}", "label": "ab"[n % 2]} for n in range(8)]
    writer.train_task("letters", short[:6], short[6:])
    found = uncertainty(writer.run, writer.run.tasks["letters"], ["1 a", "2 b"])
    assert found.shape == (2,)
    assert (found > 0).all()
    assert (found <= 0.6932).all()


def test_uncertainty_of_a_module():
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    trainer = ContinualTrainer(nn.Linear(3, 2), learner={"epochs": 1})
    trainer.train_task("a", train_loader=DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 4))
    found = uncertainty(trainer.run, trainer.run.tasks["a"], x)
    torch.testing.assert_close(found, entropy_of(trainer.run.model.network(x).detach()))
    numbers = ContinualTrainer(nn.Linear(3, 1), learner={"epochs": 1})
    numbers.train_task("b", train_loader=DataLoader(TensorDataset(x, x[:, :1]), 4))
    with pytest.raises(StreamError, match=r"uncertainty: what numbers answer has no entropy. Got 'b'"):
        uncertainty(numbers.run, numbers.run.tasks["b"], x)
