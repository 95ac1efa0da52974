import gc
import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest

from everlearn.models.causal import CausalObjective
from everlearn.models.labelled import ClassifyObjective, TagObjective
from everlearn.models.objectives import IGNORED
from everlearn.models.tokens import CHUNK, RaggedWriter, TokenWriter
from everlearn.types import Task
from support.models import byte_tokenizer

ROWS = [[1, 2, 3], [], [65_535], [7, 8]]


@pytest.mark.parametrize("mapped_bytes", [2**20, 9, 0])
def test_rows_come_back_from_memory_and_from_a_mapped_file(mapped_bytes):
    writer = RaggedWriter(np.uint16, mapped_bytes)
    writer.add(ROWS[:1])
    writer.add([])
    writer.add(ROWS[1:])
    ragged = writer.close()
    assert [row.tolist() for row in ragged] == ROWS
    assert ragged.lengths.tolist() == [3, 0, 1, 2]
    assert ragged.values.nbytes == 2 * 6
    assert isinstance(ragged.values, np.memmap) == (mapped_bytes < 12)
    with pytest.raises(IndexError):
        ragged[4]


def test_no_rows_are_no_rows():
    assert len(RaggedWriter(np.int32, 0).close()) == 0
    assert list(TokenWriter(np.uint16).close()) == []


def test_a_number_too_large_is_refused():
    with pytest.raises(OverflowError):
        RaggedWriter(np.uint16).add([[65_536]])


def test_nothing_is_left_of_a_process_that_was_killed(tmp_path):
    code = (
        "import os, signal, numpy as np\n"
        "from everlearn.models.tokens import RaggedWriter\n"
        "writer = RaggedWriter(np.uint16, 0)\n"
        "writer.add([[1, 2, 3]])\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parents[2] / "src"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": root})
    assert done.returncode == -9
    assert list(tmp_path.iterdir()) == []


def test_examples_are_lists_one_by_one_and_arrays_for_a_batch():
    writer = TokenWriter(np.uint16)
    writer.add([(0, [5, 6, 7, 8], [(1, 2), (3, 4)]), (4, [9], [])], [(3, 1), (1, 0)])
    features = writer.close()
    assert features[0] == {"input_ids": [5, 6, 7, 8], "labels": [IGNORED, 6, IGNORED, 8], "row": 0}
    assert features[-1] == {"input_ids": [9], "labels": [IGNORED], "row": 4}
    assert features[:] == list(features)
    assert features.rows.tolist() == [0, 4]
    second, first = features.take([1, 0])
    assert (first["labels"].tolist(), second["row"]) == (features[0]["labels"], 4)
    with pytest.raises(IndexError):
        features[2]


def test_rows_are_encoded_some_at_a_time_as_they_are_together_at_8_bytes_a_token_at_most():
    objective = CausalObjective(byte_tokenizer(), 512)
    rows = [{"prompt": f"{i} " * (20 + i % 9), "completion": f" {i}"} for i in range(CHUNK + 3)]
    task, done = Task("t", "prompt", rows, []), []
    features = objective.encode(rows, task, done.append)
    assert done == [CHUNK, 3]
    assert features.rows.tolist() == list(range(len(rows)))
    for i in (0, CHUNK - 1, CHUNK, CHUNK + 2):
        (alone,) = objective.encode([rows[i]], task)
        assert features[i] == {**alone, "row": i}
    ids, spans = features.ids, features.spans
    kept = (ids.values, ids.offsets, spans.values, spans.offsets, features.rows, features.sizes)
    assert sum(array.nbytes for array in kept) <= 8 * len(ids.values)


def test_rows_of_a_table_are_encoded_once_for_each_purpose_and_forgotten_with_it():
    objective = CausalObjective(byte_tokenizer(), 512)
    rows = datasets.Dataset.from_list([{"prompt": f"{i}", "completion": " x"} for i in range(9)])
    task, done = Task("t", "prompt", rows, []), []
    once = objective.encode(rows, task, done.append)
    assert objective.encode(rows, task, done.append) is once is objective.encode_answers(rows, task)
    assert done == [9, 9]
    objective.train_on = "all"
    assert objective.encode(rows, task) is not once
    objective.max_length = 8
    assert objective.encode_answers(rows, task) is not once
    assert len(pickle.loads(pickle.dumps(objective))._kept) == 0
    assert len(objective._kept) == 1
    del rows, task
    gc.collect()
    assert len(objective._kept) == 0
    listed = [{"prompt": "1", "completion": " x"}]
    task = Task("t", "prompt", listed, [])
    assert len(objective.encode(listed, task)) == 1
    listed.append({"prompt": "2", "completion": " y"})
    assert len(objective.encode(listed, task)) == 2, "a list may change"


ADAPTERS = SimpleNamespace(head_mode="task", task_blocks={"t": 3})


def test_labelled_rows_are_encoded_in_chunks_as_they_are_at_once():
    tokenizer, done = byte_tokenizer(), []
    objective = ClassifyObjective(tokenizer, ADAPTERS, 40)
    rows = [{"text": f"{i} " * (1 + i % 9), "label": i % 2} for i in range(CHUNK + 2)]
    rows[-1]["text_pair"] = "the only pair, in the last chunk"  # what makes pairs of all rows
    task = Task("t", "classify", rows, [], labels=("no", "yes"))
    features = objective.encode(rows, task, done.append)
    assert done == [CHUNK, 2]
    assert len(features) == len(rows)
    assert features.lengths.max() == 40
    for i in (0, CHUNK - 1, CHUNK, CHUNK + 1):
        pair = [rows[i].get("text_pair", "")]
        wanted = tokenizer([rows[i]["text"]], pair, truncation=True, max_length=40)
        assert features[i] == {**_unmasked(wanted), "labels": [i % 2], "task": 3}
    assert features[-2:] == [features[CHUNK], features[CHUNK + 1]]
    assert objective.lengths(rows)[CHUNK + 1] > 40


def test_tags_take_eight_bytes_a_token():
    tokenizer = byte_tokenizer()
    rows = datasets.Dataset.from_dict({"tokens": [["one", "two", "nine"]] * 50, "tags": [[0, -100, 1]] * 50})
    features = TagObjective(tokenizer, ADAPTERS, 20).encode(rows, Task("t", "tag", rows, [], labels=("O", "B-X")))
    assert features[7]["read"] == [0, 2]
    assert sorted(set(features[7]["labels"])) == [IGNORED, 0, 1]
    n_bytes = sum(column.values.nbytes for column in features.columns.values())
    assert n_bytes <= 8 * features.lengths.sum()
    with pytest.raises(IndexError):
        features[50]


def test_no_labelled_rows_are_no_rows():
    features = ClassifyObjective(byte_tokenizer(), ADAPTERS, 20).encode(
        [], Task("t", "classify", [], [], labels=("a",))
    )
    assert list(features) == []


def _unmasked(encoded) -> dict:
    return {name: encoded[name][0] for name in encoded if name != "attention_mask"}
