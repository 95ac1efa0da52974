"""Problems on their way to verl: drawn as the stream would draw them, or copied."""

import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from everlearn.errors import ConfigError, StreamError
from everlearn.kinds.reinforcement.verl.data import Group, write_data
from support.countdown import recipe_with


def of_files(paths, **changes):
    stream = {"name": "files", "paths": [str(path) for path in paths], "verifier": "countdown", **changes}
    return replace(recipe_with(), stream=stream)


def test_a_stream_gives_the_problems_that_a_run_would_learn(tmp_path):
    recipe = recipe_with(stream={"groups": [1], "sizes": [3, 4], "data_seed": 5})
    groups, notes = write_data(recipe, tmp_path)
    assert (groups, notes) == ({"1": Group("1", 25)}, [])
    task = recipe.build_stream().build().tasks[0]
    for split, rows in (("train", task.train), ("test", task.evaluation)):
        written = pq.read_table(tmp_path / "1" / f"{split}.parquet").to_pylist()
        asked = {(row["prompt"][0]["content"], row["completion"][0]["content"]) for row in written}
        assert asked == {(row["prompt"], row["completion"]) for row in rows}


def test_files_are_copied(problems, tmp_path):
    groups, _ = write_data(of_files([problems], tasks=["3", "1"]), tmp_path)
    assert groups == {"3": Group("3", 130), "1": Group("1", 130)}
    assert list(groups) == ["3", "1"]
    for name in ("1/train", "1/test", "3/train", "3/test"):
        assert (tmp_path / f"{name}.parquet").read_bytes() == (problems / f"{name}.parquet").read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


def test_folders_keep_the_order_in_which_they_are_named(problems, tmp_path):
    groups, _ = write_data(of_files([problems / "2", problems / "0"]), tmp_path)
    assert list(groups) == ["2", "0"]


OTHERS = {
    "rows": lambda path: path.with_suffix(".jsonl").write_text(json.dumps({"prompt": "3 5", "completion": "8"}) + "\n"),
    "other columns": lambda path: pq.write_table(pa.table({"prompt": ["3 5"]}), path),
    "other types": lambda path: pq.write_table(
        pa.table({"data_source": ["x"], "prompt": ["3 5"], "reward_model": [{"a": 1}]}), path
    ),
    "no Parquet": lambda path: path.write_bytes(b"PAR1"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_files_of_another_shape_are_refused(kind, problems, tmp_path):
    folder = tmp_path / "0"
    folder.mkdir()
    (folder / "test.parquet").write_bytes((problems / "0/test.parquet").read_bytes())
    OTHERS[kind](folder / "train.parquet")
    with pytest.raises(ConfigError, match=r"train\.\w+: can't be exported to verl.*everlearn countdown generate"):
        write_data(of_files([folder]), tmp_path / "out")


def test_tasks_that_lack_something_are_refused(problems, tmp_path):
    def refused(folder, message, **changes):
        with pytest.raises(ConfigError, match=message):
            write_data(of_files([folder], **changes), tmp_path / "out")

    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "train.parquet").write_bytes((problems / "0/train.parquet").read_bytes())
    refused(alone, r"task 'alone': can't .*Got \['train'\]\. It needs files to train and to test")
    alone.rename(tmp_path / "a b")
    (tmp_path / "a b/test.parquet").write_bytes((problems / "0/test.parquet").read_bytes())
    refused(tmp_path / "a b", "task 'a b': can't .*Name its folder with letters")
    refused(problems, r"stream\.tasks: .*Name some of 0, 1, 2, 3", tasks=["4"])
    with pytest.raises(StreamError, match="there is no such file or folder"):
        write_data(of_files([tmp_path / "none"]), tmp_path / "out")


def test_prompts_that_end_in_a_tag_and_other_streams_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"stream\.tags: .*Got 'none'\. Write both"):
        write_data(recipe_with(stream={"tags": "none"}), tmp_path)
    with pytest.raises(ConfigError, match=r"stream\.name: can't be exported to verl\. Got 'arena'"):
        write_data(replace(recipe_with(), stream={"name": "arena"}), tmp_path)
