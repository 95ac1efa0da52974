"""How many of Countdown's problems a model solves."""

import json
import re

import pytest

from everlearn.cli import main
from everlearn.errors import ModelError, StreamError
from everlearn.evaluation import score as scoring
from everlearn.evaluation.countdown import success_rates
from everlearn.streams.countdown.generate import Order, generate
from everlearn.streams.countdown.groups import Space
from support.qwen import make_qwen


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    return str(make_qwen(tmp_path_factory.mktemp("models") / "qwen"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Groups 0 and + *, 8 problems each to test."""
    out = tmp_path_factory.mktemp("data")
    generate(Order(Space(sizes=(3,), max_number=20), ("0", "+*"), 12, 8, "short"), out)
    return out


def add_all(network, objective, prompts, *_):
    """Answer each question with the sum of its numbers."""
    numbers = [re.search(r"Numbers ([\d ]+) use", objective.tokenizer.decode(ids)).group(1) for ids in prompts]
    return [f"<answer>{' + '.join(some.split())}</answer>" for some in numbers]


def test_each_group_is_asked(qwen, data, monkeypatch):
    scores = list(success_rates(qwen, data, max_new_tokens=2, device="cpu"))
    assert [(score.task, score.n, score.value) for score in scores] == [("0", 8, 0.0), ("plus_times", 8, 0.0)]
    monkeypatch.setattr(scoring, "generate_greedily", add_all)
    sums, others = success_rates(qwen, data, device="cpu")
    assert (sums.value, sum(sums.outcomes)) == (1.0, 8)
    assert others.value < 1
    first = next(success_rates(qwen, data, n=3, device="cpu"))
    assert (first.n, first.outcomes, first.low < 1) == (3, (1.0,) * 3, True)


def test_the_command(qwen, data, tmp_path, capsys):
    options = ["--data", str(data), "--max-new-tokens", "2", "--out", str(tmp_path / "scores.json")]
    assert main(["countdown", "evaluate", qwen, *options]) == 0
    assert "plus_times" in capsys.readouterr().out
    found = json.loads((tmp_path / "scores.json").read_text())
    assert [(one["task"], one["value"], len(one["outcomes"])) for one in found["scores"]] == [
        ("0", 0.0, 8), ("plus_times", 0.0, 8),
    ]  # fmt: skip


def test_errors(qwen, data, tmp_path):
    with pytest.raises(StreamError, match="there is no such file or folder"):
        next(success_rates(qwen, tmp_path / "none"))
    (tmp_path / "0").mkdir()
    (tmp_path / "0/train.parquet").write_bytes((data / "0/train.parquet").read_bytes())
    with pytest.raises(StreamError, match=r"task '0': has no test file.*Put a test\.parquet beside"):
        next(success_rates(qwen, tmp_path))
    with pytest.raises(ModelError):
        next(success_rates(str(tmp_path / "no_model"), data))
