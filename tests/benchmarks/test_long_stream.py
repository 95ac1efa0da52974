"""The long stream from end to end, of a few small tasks: what learns how, and the numbers beside `separate`."""

import json
from pathlib import Path

import long_stream
import pytest
from datasets import Dataset

PAIRS = {"dsc/books": ("good", "bad"), "dsc/films": ("cat", "dog"), "asc/asc_laptop": ("red", "blue")}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Reviews of two products, opinions on the parts of a third, pairs of texts; 24 rows each."""
    for name, words in PAIRS.items():
        write(tmp_path / "data" / "sentiment" / name, "aspect", "test", words)
    write(tmp_path / "data" / "glue" / "mrpc", "text_pair", "validation", ("one", "two"))
    return tmp_path / "data"


def write(folder: Path, second: str, held: str, words: tuple[str, str]) -> None:
    folder.mkdir(parents=True)
    for role, n in (("train", 24), (held, 6)):
        rows = [
            {
                "text": f"is {'a ' * (i % 5)}{words[i % 2]} {role} {i}",
                second: folder.name,
                "label": ("no", "yes")[i % 2],
            }
            for i in range(n)
        ]
        Dataset.from_list(rows).to_parquet(folder / f"{role}.parquet")


@pytest.mark.filterwarnings("ignore:task '.*. of 24 rows, [0-9]+ are held out:UserWarning")
def test_ways_to_learn_a_stream_are_measured_beside_one_lora_a_task(data, whole_bert, tmp_path, monkeypatch):
    results = tmp_path / "long_stream.json"
    monkeypatch.setattr(long_stream, "results_path", lambda name: results)
    monkeypatch.setattr(long_stream, "OTHERS", {"mrpc": long_stream.OTHERS["mrpc"]})
    words = ["long_stream.py", str(data), "--out", str(tmp_path / "out"), "--model", str(whole_bert), "--seeds", "0"]
    words += [
        "--set",
        "learner.epochs=1",
        "--set",
        "stream.validation_fraction=0.34",
        "--set",
        "model.max_length=32",
        "--set",
        "device=cpu",
    ]
    monkeypatch.setattr("sys.argv", [*words, "--only", "separate,oracle"])
    long_stream.main()
    found = json.loads(results.read_text())
    assert found["config"]["tasks"] == 4
    oracle = found["numbers"]["oracle"]
    assert oracle["actions"] == {"create": 3, "reuse": 1}  # the second kind of review
    assert (oracle["n_experts"], oracle["false_reuse"]["n"]) == (3, 1)
    assert oracle["n_steps"] == 0.75 * found["numbers"]["separate"]["n_steps"]
    assert oracle["beside_separate"]["low"] <= oracle["beside_separate"]["value"]
    kept = (tmp_path / "out" / "oracle" / "seed-0" / "results.jsonl").read_bytes()
    monkeypatch.setattr("sys.argv", [*words, "--only", "oracle"])
    long_stream.main()
    assert (tmp_path / "out" / "oracle" / "seed-0" / "results.jsonl").read_bytes() == kept


def test_a_way_that_is_not_there_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["long_stream.py", str(data), "--out", str(tmp_path / "out"), "--only", "orakle"])
    monkeypatch.setattr(long_stream, "OTHERS", {})
    with pytest.raises(SystemExit, match="no such way: orakle"):
        long_stream.main()
