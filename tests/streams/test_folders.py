import pytest

from everlearn.errors import StreamError
from everlearn.streams.folders import find_tasks


def _make(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")


def _found(*paths):
    return [(task.name, {role: path.name for role, path in task.files.items()}) for task in find_tasks(paths)]


def test_a_folder_of_folders_is_a_task_a_folder(tmp_path):
    _make(
        tmp_path,
        "b/train.parquet",
        "b/test.parquet",
        "b/dev.parquet",
        "a/train.jsonl",
        "a/validation.csv",
        "tasks.json",
    )
    assert _found(tmp_path) == [
        ("a", {"train": "train.jsonl", "evaluation": "validation.csv"}),
        ("b", {"validation": "dev.parquet", "evaluation": "test.parquet", "train": "train.parquet"}),
    ]


def test_files_with_a_role_in_their_name_make_a_task(tmp_path):
    _make(tmp_path, "x_train.jsonl", "x_eval.jsonl", "y-train.csv", "y-test.csv", "y-val.csv", "notes.md", "z.jsonl")
    assert _found(tmp_path) == [
        ("x", {"evaluation": "x_eval.jsonl", "train": "x_train.jsonl"}),
        ("y", {"evaluation": "y-test.csv", "train": "y-train.csv", "validation": "y-val.csv"}),
        ("z", {"train": "z.jsonl"}),
    ]


def test_a_folder_with_train_and_test_is_one_task(tmp_path):
    _make(tmp_path, "billing/train.csv", "billing/test.csv")
    assert _found(tmp_path / "billing") == [("billing", {"evaluation": "test.csv", "train": "train.csv"})]


def test_a_list_keeps_its_order_and_finds_the_test_file_beside(tmp_path):
    _make(tmp_path, "b_train.csv", "b_test.csv", "a.csv", "c/train.csv", "d_train.csv")
    paths = [tmp_path / name for name in ("b_train.csv", "c", "a.csv")]
    assert _found(*paths) == [
        ("b", {"train": "b_train.csv", "evaluation": "b_test.csv"}),
        ("c", {"train": "train.csv"}),
        ("a", {"train": "a.csv"}),
    ]


@pytest.mark.parametrize(
    ("names", "what"),
    [
        (["a_train.csv", "a_train.jsonl"], "task 'a': there are two files for train"),
        (["a/train.csv", "a/test.csv", "a/eval.csv"], "task 'a': there are two files for evaluation"),
        (["a_test.csv"], "task 'a': has no train file"),
        (["a/test.csv"], "task 'a': has no train file"),
        (["a/train.csv", "a/more.csv"], "task 'a': a file's name tells no role"),
        (["notes.md"], "the folder holds no data file"),
    ],
)
def test_names_that_make_no_task_are_refused(tmp_path, names, what):
    _make(tmp_path, *names)
    with pytest.raises(StreamError, match=what):
        find_tasks([tmp_path])


def test_a_path_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StreamError, match=r"no such file or folder.*nowhere"):
        find_tasks([tmp_path / "nowhere"])
