import json
import tracemalloc

import datasets
import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.streams import parts
from everlearn.streams.loading import TaskOptions, build_task
from everlearn.streams.rows import NestedRows

TEXTS = [{"text": f"text number {i}"} for i in range(400)]


def _build(train, evaluation=None, validation=None, **options):
    return build_task("t", train, evaluation, validation, TaskOptions(**options))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("kind", "tensor"),
        ("columns", {"promt": "q"}),
        ("columns", ["prompt"]),
        ("labels", ["a", "a"]),
        ("labels", "ab"),
        ("on_bad_row", "ignore"),
        ("eval_fraction", 1.0),
        ("eval_fraction", "0.2"),
        ("validation_fraction", 0.8),
        ("validation_fraction", -0.1),
        ("max_new_tokens", 0),
        ("threshold", "both"),
    ],
)
def test_a_bad_option_is_named_with_its_value(name, value):
    with pytest.raises(ConfigError, match=rf"stream\.{name}: ") as caught:
        TaskOptions(**{name: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "a", "completion": "b"}, "prompt"),
        ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}, "prompt"),
        ({"text": "a", "label": "b"}, "classify"),
        ({"tokens": ["a"], "tags": ["O"]}, "tag"),
        ({"text": "a"}, "text"),
    ],
)
def test_the_kind_comes_from_the_columns(row, kind):
    task = _build([row], [row], allow_overlap=True)
    assert task.kind == kind
    assert isinstance(task.train, NestedRows if "messages" in row else datasets.Dataset)
    assert bool(task.labels) == (kind in ("classify", "tag"))


def test_a_kind_that_is_asked_for_wins_over_the_columns():
    assert _build([{"text": "a", "label": "b"}], [{"text": "c"}], kind="text").train.to_list() == [{"text": "a"}]


def test_columns_that_tell_no_kind_are_listed():
    with pytest.raises(StreamError, match=r"tell no kind. Got \['question', 'answer'\]"):
        _build([{"question": "a", "answer": "b"}])


def test_a_mapped_column_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(StreamError, match=r"no column to map to 'prompt'. Got 'qestion'. Did you mean 'question'\?"):
        _build([{"question": "a", "answer": "b"}], columns={"prompt": "qestion", "completion": "answer"})


def test_the_split_is_disjoint_complete_and_near_its_shares():
    task = _build(TEXTS, eval_fraction=0.25, validation_fraction=0.25)
    parts = [set(rows["text"]) for rows in (task.train, task.evaluation, task.validation)]
    assert set.union(*parts) == {row["text"] for row in TEXTS}
    assert sum(map(len, parts)) == 400
    # binomial with n 400 and p 0.25: sd 8.7, so 5 sd either side
    assert all(100 - 44 < len(part) < 100 + 44 for part in parts[1:])


def test_the_split_keeps_equal_rows_together_and_rows_stay_when_others_come():
    task = _build([*TEXTS[:200], *TEXTS[:200]])
    assert len(task.train) == 2 * len(set(task.train["text"]))
    grown = _build(TEXTS)
    assert set(task.evaluation["text"]) <= set(grown.evaluation["text"])
    assert set(task.train["text"]) <= set(grown.train["text"])


def test_a_single_file_holds_a_tenth_out_for_validation_where_that_is_wanted_and_an_explicit_one_nothing():
    assert _build(TEXTS).validation is None
    assert 10 < len(_build(TEXTS, wants_validation=True).validation) < 70
    assert len(_build(TEXTS, validation_fraction=0.25).validation) > 50
    assert _build(TEXTS, wants_validation=True, validation_fraction=0.0).validation is None
    assert _build(TEXTS[:300], TEXTS[300:], wants_validation=True).validation is None
    asked = _build(TEXTS[:300], TEXTS[300:], validation_fraction=0.5)
    assert len(asked.train) + len(asked.validation) == 300
    assert len(asked.evaluation) == 100


def test_validation_rows_that_are_given_are_the_validation():
    task = _build(TEXTS[:300], None, TEXTS[300:])
    assert task.validation["text"] == [row["text"] for row in TEXTS[300:]]
    assert len(task.train) + len(task.evaluation) == 300


def test_two_rows_make_one_to_learn_and_one_to_measure():
    task = _build(TEXTS[:2], eval_fraction=0.01, validation_fraction=0.0)
    assert (len(task.train), len(task.evaluation), task.validation) == (1, 1, None)
    with pytest.raises(StreamError, match=r"no row is left to train on after the split. Got 1"):
        _build(TEXTS[:1])


def test_labels_of_train_and_evaluation_are_united():
    task = _build([{"text": "a", "label": "m"}], [{"text": "b", "label": "c"}, {"text": "d", "label": "m"}])
    assert task.labels == ("c", "m")
    assert task.train["label"] == [1]
    assert task.evaluation["label"] == [0, 1]


def test_several_labels_a_text_are_numbered_together(tmp_path):
    rows = [{"text": f"text {i}", "labels": [["b", "a", "b"], ["c"], []][i % 3]} for i in range(9)]
    task = _build(rows, [{"text": "else", "labels": ["c", "a"]}])
    assert (task.kind, task.labels) == ("multilabel", ("a", "b", "c"))
    assert [row["labels"] for row in task.train][:3] == [[1, 0], [2], []]
    assert task.evaluation[0]["labels"] == [2, 0]
    file = tmp_path / "rows.csv"
    file.write_text('text,labels\none,"[""b""]"\ntwo,[]\n')
    assert [row["labels"] for row in _build(str(file), rows).train] == [[1], []]


def test_a_threshold_needs_validation_rows_of_several_labels():
    rows = [{"text": f"text {i}", "labels": ["b", "a"][: i % 3]} for i in range(60)]
    task = _build(rows, threshold="each")
    assert task.threshold == "each"
    assert len(task.validation) > 0
    with pytest.raises(ConfigError, match=r"threshold is chosen on validation rows.*Got 'multilabel rows: train, eval"):
        _build(rows[:40], rows[40:], threshold="one")
    with pytest.raises(ConfigError, match=r"threshold is chosen on validation rows"):
        _build(TEXTS, threshold="one")


def test_labels_that_are_given_keep_their_order_and_know_no_other():
    train, evaluation = [{"text": "a", "label": "pos"}], [{"text": "b", "label": 1}]
    task = _build(train, evaluation, labels=["pos", "neg"])
    assert (task.labels, task.train["label"], task.evaluation["label"]) == (("pos", "neg"), [0], [1])
    with pytest.raises(StreamError, match="train row 1: unknown label 'pos'"):
        _build(train, evaluation, labels=["good", "bad"])


def test_labels_that_the_data_declares_win_and_must_agree():
    names = datasets.ClassLabel(names=["b", "a"])
    features = datasets.Features({"text": datasets.Value("string"), "label": names})
    train = datasets.Dataset.from_dict({"text": ["x"], "label": [0]}, features=features)
    assert _build(train, [{"text": "y", "label": "a"}]).labels == ("b", "a")
    assert _build(train, [{"text": "y", "label": "a"}], labels=["a", "b"]).labels == ("b", "a")
    with pytest.raises(StreamError, match="labels are not those of the data"):
        _build(train, [{"text": "y", "label": "a"}], labels=["a", "c"])
    features["label"] = datasets.ClassLabel(names=["a", "b"])
    with pytest.raises(StreamError, match="declare different labels"):
        _build(train, datasets.Dataset.from_dict({"text": ["y"], "label": [0]}, features=features))


def test_prompts_have_choices_but_no_labels():
    rows = [{"prompt": "1+1?", "completion": "2"}]
    task = _build(rows, [{"prompt": "1+2?", "completion": "3"}], choices=["2", "3"], metrics=["choice"])
    assert task.train[0]["choices"] == ["2", "3"]
    assert task.metrics == ("choice",)
    with pytest.raises(StreamError, match="rows of kind 'prompt' have no labels"):
        _build(rows, labels=["2"])


def test_skipping_bad_rows_warns_and_refuses_an_empty_rest():
    bad = {"text": ""}
    with pytest.warns(UserWarning, match="skipped 1 of 3 rows: train row 2: text is empty"):
        task = _build([TEXTS[0], bad], [TEXTS[1]], on_bad_row="skip")
    assert len(task.train) == 1
    with (
        pytest.warns(UserWarning, match="skipped 1 of 2"),
        pytest.raises(StreamError, match="no good row is left in evaluation"),
    ):
        _build([TEXTS[0]], [bad], on_bad_row="skip")


def test_bad_rows_of_all_parts_come_in_one_error(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(StreamError) as caught:
        _build(path, [{"text": None}])
    assert f"{path} line 2: invalid JSON" in str(caught.value)
    assert "evaluation row 1: text is null. Got '2 bad of 3 rows'" in str(caught.value)


def test_a_file_without_a_readable_row_reports_its_rows(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("no\njson\n")
    with pytest.raises(StreamError, match=r"a\.jsonl line 1: invalid JSON.*a\.jsonl line 2"):
        _build(path)


def test_rows_set_aside_are_told():
    assert _build(TEXTS[:300], TEXTS[300:]).notes == ()
    task = _build(TEXTS, wants_validation=True)
    n_items, n_validation = len(task.evaluation), len(task.validation)
    assert task.notes == (
        f"task 't': of 400 rows, {n_items} are held out for evaluation and {n_validation} are held out for early "
        "stopping (validation).",
    )


CHAT = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


def test_a_conversation_in_two_columns_is_a_chat():
    row = {"prompt": CHAT[:1], "completion": CHAT[1:]}
    assert list(_build([row], [row], allow_overlap=True).train) == [{"messages": CHAT}]
    assert list(_build([row], [row], allow_overlap=True, kind="prompt").train) == [{"messages": CHAT}]


def test_a_file_of_two_forms_is_refused_unless_the_columns_say_which_counts():
    rows = [{"prompt": "a", "completion": "b", "messages": CHAT}]
    with pytest.raises(StreamError, match=r"train has both prompt and messages\. Got \[\]\. Write columns: \{mess"):
        _build(rows, rows, allow_overlap=True)
    chosen = _build(rows, rows, allow_overlap=True, columns={"messages": "messages"})
    assert list(chosen.train) == [{"messages": CHAT}]
    other = {"prompt": "prompt", "completion": "completion"}
    assert list(_build(rows, rows, allow_overlap=True, columns=other).train) == [{"prompt": "a", "completion": "b"}]


def test_chat_rows_can_be_read_again():
    task = _build([{"messages": CHAT}], [{"messages": CHAT}], allow_overlap=True)
    assert list(_build(task.train, task.evaluation, allow_overlap=True).train) == [{"messages": CHAT}]


def test_an_arrow_table_s_made_up_keys_are_taken_off(tmp_path):
    rows = [
        {"messages": [{"role": "user", "content": "a", **more}, {"role": "assistant", "content": "b"}]}
        for more in ({"call": {"date": "d"}}, {"call": {"city": "c"}})
    ]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    assert list(_build(tmp_path / "a.parquet", rows, allow_overlap=True).train) == rows


def test_numbers_and_white_space_make_no_label_of_their_own(tmp_path):
    (tmp_path / "train.csv").write_text("text,label\na,0.0\nb,1.0\n")
    task = _build(tmp_path / "train.csv", [{"text": "c", "label": 1}, {"text": "d", "label": "0 "}])
    assert (task.labels, task.train["label"], task.evaluation["label"]) == (("0", "1"), [0, 1], [1, 0])
    assert any("'0 ' and '0.0' are one" in note for note in task.notes)


def test_evaluation_rows_without_a_label_are_bad_rows():
    train, measured = [{"text": "a", "label": 0}, {"text": "b", "label": 1}], [{"text": "c", "label": -1}]
    with pytest.raises(StreamError, match="evaluation row 1: label -1 marks a row without a label"):
        _build(train, measured)
    with pytest.warns(UserWarning, match="skipped 1 of 4 rows"):
        assert len(_build(train, [*measured, {"text": "d", "label": 1}], on_bad_row="skip").evaluation) == 1


def test_a_leak_is_refused_unless_allowed():
    with pytest.raises(
        StreamError, match="train and evaluation share rows, the first is train row 2 and evaluation row"
    ):
        _build(TEXTS[:2], [{"text": "text number 1\n"}])
    assert len(_build(TEXTS[:2], TEXTS[:2], allow_overlap=True).evaluation) == 2
    with pytest.raises(StreamError, match="validation and evaluation share rows"):
        _build(TEXTS[:2], TEXTS[2:4], TEXTS[3:5])


def test_memory_stays_near_the_size_of_the_text(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_CHUNK", 500)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"{i} " + "word " * 100, "label": i % 2}) + "\n" for i in range(8000)))
    tracemalloc.start()
    task = _build(path)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(task.train) + len(task.evaluation) == 8000
    # the text alone is 500 bytes a row, and tracemalloc does not see Arrow's memory
    assert peak_bytes < 250 * 8000 + 2**20
