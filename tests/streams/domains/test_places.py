"""Rows are found wherever they are published: files of several kinds, a copy of the hub's repository, the hub."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everlearn.errors import StreamError
from everlearn.streams.domains.asc import Asc
from everlearn.streams.domains.cl15 import Cl15
from everlearn.streams.domains.dsc import Dsc
from everlearn.streams.domains.glue import Glue
from everlearn.streams.domains.multilingual import Multilingual
from everlearn.streams.domains.ner_domains import NerDomains
from everlearn.streams.domains.trace import Trace


def test_trace_as_its_benchmark_has_it(tmp_path, write):
    for role in ("train", "eval", "test"):
        write(f"FOMC/{role}.json", [{"prompt": f"{role} {i}", "answer": "ABC"[i % 3]} for i in range(3)])
    task = Trace(folder=str(tmp_path), order=["FOMC"]).build().tasks[0]
    assert (task.kind, task.metrics) == ("prompt", ("exact_match",))
    assert dict(task.train[1]) == {"prompt": "train 1", "completion": "B"}
    assert [row["prompt"] for row in task.evaluation] == ["test 0", "test 1", "test 2"]
    assert [row["prompt"] for row in task.validation] == ["eval 0", "eval 1", "eval 2"]


def test_cl15_as_its_benchmark_has_it(tmp_path, write):
    def instances(*pairs):
        return {"Definition": [""], "Instances": [{"input": text, "output": label} for text, label in pairs]}

    write("NLI/MNLI/train.json", instances(("sentence 1: a", "neutral"), ("sentence 1: b", "contradiction")))
    write("NLI/MNLI/test.json", instances(("sentence 1: c", "entailment"), ("sentence 1: d", "-")))
    with pytest.warns(UserWarning, match="skipped 1 of 4 rows: .*unknown label '-'"):
        task = Cl15(folder=str(tmp_path), order=["mnli"]).build().tasks[0]
    assert task.labels == ("neutral", "entailment", "contradiction")
    assert [dict(row) for row in task.train] == [
        {"text": "sentence 1: a", "label": 0},
        {"text": "sentence 1: b", "label": 2},
    ]
    assert len(task.evaluation) == 1


def test_dsc_as_its_repository_has_it(tmp_path, write):
    rows = {str(i): {"id": i, "sentence": f"row {i}", "term": None, "polarity": ("-1", "1")[i % 2]} for i in range(8)}
    for role, own in (("train", range(4)), ("dev", range(4, 6)), ("test", range(6, 8))):
        write(f"Baby/{role}.json", {str(i): rows[str(i)] for i in own})
    task = Dsc(folder=str(tmp_path), order=["Baby"]).build().tasks[0]
    assert task.labels == ("negative", "positive")
    assert [(row["text"], row["label"]) for row in task.train][:2] == [("row 0", 0), ("row 1", 1)]
    assert [len(part) for part in (task.train, task.validation, task.evaluation)] == [4, 2, 2]


def test_asc_as_its_repository_has_it(tmp_path, write):
    def rows(*ids):
        return {
            f"r{i}": {"sentence": f"s{i}", "term": f"t{i}", "polarity": ("negative", "positive")[i % 2]} for i in ids
        }

    write("Bing3Domains/asc/Router/train.json", rows(0, 1, 2))
    write("Bing3Domains/asc/Router/test.json", rows(3, 4))
    task = Asc(folder=str(tmp_path), order=["Bing3Domains_Router"]).build().tasks[0]
    assert dict(task.train[0]) == {"text": "s0", "text_pair": "t0", "label": 0}


def test_files_of_ones_own_in_any_format(tmp_path, write):
    for role, labels in (("train", [0, 1]), ("validation", [1])):
        table = pa.table({"text": [f"{role} {i}" for i in range(len(labels))], "label": labels})
        (tmp_path / "cola").mkdir(exist_ok=True)
        pq.write_table(table.replace_schema_metadata({"labels": '["bad", "good"]'}), tmp_path / f"cola/{role}.parquet")
    (tmp_path / "rte").mkdir()
    (tmp_path / "rte" / "train.csv").write_text("sentence1,sentence2,label\na,b,yes\nc,d,no\n", encoding="utf-8")
    (tmp_path / "rte" / "test.csv").write_text("sentence1,sentence2,label\ne,f,no\n", encoding="utf-8")
    cola, rte = Glue(folder=str(tmp_path), order=["cola", "rte"]).build()
    assert (cola.labels, len(cola.evaluation), cola.metrics[0]) == (("bad", "good"), 1, "matthews")
    assert dict(rte.train[0]) == {"text": "a", "text_pair": "b", "label": 1}


@pytest.mark.parametrize(("content", "told"), [("{", "is no JSON"), ("[1]", "holds no rows"), ('"x"', "holds no rows")])
def test_json_that_holds_no_rows_is_refused(tmp_path, write, content, told):
    write("FOMC/test.json", [{"prompt": "a", "answer": "b"}])
    (tmp_path / "FOMC" / "train.json").write_text(content, encoding="utf-8")
    with pytest.raises(StreamError, match=told):
        Trace(folder=str(tmp_path), order=["FOMC"]).build()


def test_two_files_for_one_role_are_refused(tmp_path, write):
    write("FOMC/train.json", [{"prompt": "a", "answer": "b"}])
    write("FOMC/train.jsonl", [{"prompt": "a", "answer": "b"}])
    with pytest.raises(StreamError, match="two files for train"):
        Trace(folder=str(tmp_path), order=["FOMC"]).build()


def _to_glue(root, to_hub):
    for role, labels in (("train", [0, 1, 0]), ("validation", [1, 0])):
        columns = {"sentence": [f"{role} {i}" for i in range(len(labels))], "label": labels}
        to_hub(f"nyu-mll/glue/cola/{role}-00000-of-00001.parquet", columns, {"label": ["unacceptable", "acceptable"]})
    card = "---\nconfigs:\n- config_name: cola\n  data_files:\n" + "".join(
        f"  - split: {role}\n    path: cola/{role}-*\n" for role in ("train", "validation")
    )
    (root / "nyu-mll/glue/README.md").write_text(card + "---\n", encoding="utf-8")


def _to_cross_ner(to_hub):
    for role in ("train", "validation", "test"):
        columns = {"id": ["0", "1"], "tokens": [["a", role], ["b", role]], "ner_tags": [[0, 1], [1, 2]]}
        to_hub(f"DFKI-SLT/cross_ner/ai/{role}/0000.parquet", columns, {"ner_tags": ["O", "B-field", "I-field"]})


@pytest.mark.parametrize("as_folder", [False, True], ids=["hub", "copy"])
def test_the_hub_and_a_copy_of_it_give_the_same(hub, to_hub, as_folder):
    _to_glue(hub, to_hub)
    _to_cross_ner(to_hub)
    folder = str(hub) if as_folder else None
    cola = Glue(folder=folder, order=["cola"]).build().tasks[0]
    assert (cola.labels, cola.metrics) == (("unacceptable", "acceptable"), ("matthews", "accuracy"))
    assert [dict(row) for row in cola.evaluation] == [
        {"text": "validation 0", "label": 1},
        {"text": "validation 1", "label": 0},
    ]
    ai = NerDomains(folder=folder, order=["crossner_ai"]).build().tasks[0]
    assert (ai.kind, ai.labels, dict(ai.train[1])) == (
        "tag",
        ("O", "B-field", "I-field"),
        {"tokens": ["b", "train"], "tags": [1, 2]},
    )
    assert ai.metrics == ("entity_f1",)


def test_a_name_of_labels_that_the_hub_has_not_comes_from_the_table(to_hub):
    for role in ("train", "test"):
        columns = {"tokens": [["a", role], ["b", role]], "tags": [[0, 1], [2, 3]]}
        to_hub(f"tner/bc5cdr/bc5cdr/{role}/0000.parquet", columns)
    task = NerDomains(order=["bc5cdr"]).build().tasks[0]
    assert [task.labels[tag] for tag in task.train[1]["tags"]] == ["B-Disease", "I-Disease"]


@pytest.mark.parametrize(
    ("stream", "told"),
    [
        (Multilingual(order=["eng_Latn"]), "Davlan/sib200 eng_Latn"),
        (Glue(order=["cola"]), "nyu-mll/glue cola"),
        (Glue(order=["cola"], skip_missing=True), "nyu-mll/glue cola"),
    ],
)
def test_a_hub_that_cannot_be_reached_is_one_clear_error(hub, stream, told):
    with pytest.raises(StreamError) as caught:
        stream.build()
    assert f"{told} can't be loaded" in str(caught.value)
    assert "or give folder: with" in str(caught.value)


def test_a_split_that_is_not_there_is_told(hub, to_hub):
    _to_glue(hub, to_hub)
    with pytest.raises(StreamError, match="nyu-mll/glue mnli can't be loaded"):
        Glue(order=["mnli"]).build()
