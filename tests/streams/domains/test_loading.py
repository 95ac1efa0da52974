import pytest

from everlearn.errors import StreamError
from everlearn.streams.domains.cl15 import Cl15
from everlearn.streams.domains.dsc import Dsc
from everlearn.streams.domains.formality import Formality
from everlearn.streams.domains.glue import Glue
from everlearn.streams.domains.news_social_academic import NewsSocialAcademic


def test_templates_are_filled_from_the_hubs_columns(hub, to_hub):
    columns = {
        "premise": ["It rained.", "He ran."], "choice1": ["wet", "fast"], "choice2": ["dry", "slow"],
        "question": ["effect", "cause"], "label": [0, 1],
    }  # fmt: skip
    for role in ("train", "validation"):
        own = columns | {"premise": [f"{role}: {text}" for text in columns["premise"]]}
        to_hub(f"aps/super_glue/copa/{role}-0.parquet", own, {"label": ["choice1", "choice2"]})
    card = "---\nconfigs:\n- config_name: copa\n  data_files:\n  - split: train\n    path: copa/train-*\n"
    (hub / "aps/super_glue/README.md").write_text(f"{card}  - split: validation\n    path: copa/validation-*\n---\n")
    task = Cl15(order=["copa"]).build().tasks[0]
    assert dict(task.train[0]) == {
        "text": "train: It rained. What is the effect?", "text_pair": "A: wet B: dry", "label": 0,
    }  # fmt: skip
    assert task.labels == ("choice1", "choice2")


def test_formality_takes_the_rows_of_a_genre_with_their_ratings(to_hub):
    for role in ("train", "test"):
        to_hub(
            f"osyvokon/pavlick-formality-scores/{role}.parquet",
            {
                "domain": ["news", "blog", "news", "news"],
                "avg_score": [1.2, 3.0, -0.4, 0.0],
                "sentence": [f"{role} {i}" for i in range(4)],
            },
        )
    task = Formality(order=["news"]).build().tasks[0]
    assert (task.kind, task.metrics[0]) == ("score", "spearman")
    assert [(row["text"], row["score"]) for row in task.train] == [
        ("train 0", 1.2),
        ("train 2", -0.4),
        ("train 3", 0.0),
    ]


def test_a_score_of_the_hub_is_called_label_there(to_hub, hub):
    for role in ("train", "validation"):
        columns = {"sentence1": [f"{role} a", f"{role} b"], "sentence2": ["c", "d"], "label": [4.5, 0.0]}
        to_hub(f"nyu-mll/glue/stsb/{role}-0.parquet", columns)
    card = "---\nconfigs:\n- config_name: stsb\n  data_files:\n  - split: train\n    path: stsb/train-*\n"
    (hub / "nyu-mll/glue/README.md").write_text(f"{card}  - split: validation\n    path: stsb/validation-*\n---\n")
    task = Glue(order=["stsb"]).build().tasks[0]
    assert dict(task.train[0]) == {"text": "train a", "text_pair": "c", "score": 4.5}
    assert task.metrics == ("pearson", "spearman")


def test_entity_types_are_joined_across_domains(tmp_path, write):
    sets = {
        "conll2003": ["B-person", "I-person", "B-misc", "O"],
        "wnut17": ["B-corporation", "I-group", "B-product", "O"],
        "crossner_science": ["B-scientist", "B-university", "B-country", "B-protein"],
    }
    for name, tags in sets.items():
        for role in ("train", "test"):
            write(f"{name}/{role}.jsonl", [{"tokens": [f"{role}{i}" for i in range(4)], "tags": tags}])
    stream = NewsSocialAcademic(folder=str(tmp_path), order=1).build()
    assert [task.name for task in stream] == ["news", "social", "academic"]
    told = [[task.labels[tag] for tag in task.train[0]["tags"]] for task in stream]
    assert told == [
        ["B-person", "I-person", "O", "O"],
        ["B-organisation", "I-organisation", "O", "O"],
        ["B-person", "B-organisation", "B-location", "O"],
    ]
    assert len({task.labels for task in stream}) == 1


def test_tags_of_the_hub_are_numbers_with_names_of_their_own(to_hub):
    names = ["O", "B-PER", "I-PER", "B-MISC"]
    for role in ("train", "validation", "test"):
        columns = {"tokens": [["a", role, "c"]], "ner_tags": [[1, 3, 0]]}
        to_hub(f"eriktks/conll2003/conll2003/{role}/0000.parquet", columns, {"ner_tags": names})
    task = NewsSocialAcademic(order=["news"]).build().tasks[0]
    assert [task.labels[tag] for tag in task.train[0]["tags"]] == ["B-person", "O", "O"]


def test_a_row_that_lacks_what_is_made_of_it_is_a_bad_row(tmp_path, write):
    rows = [{"id": i, "sentence": f"row {i}", "polarity": ("-1", "1")[i % 2]} for i in range(4)]
    del rows[2]["sentence"]
    write("Baby/train.json", rows)
    write("Baby/test.json", [{"id": 9, "sentence": "row 9", "polarity": "1"}])
    with pytest.warns(UserWarning, match="skipped 1 of 5 rows: train row 3: column 'text' is missing"):
        assert len(Dsc(folder=str(tmp_path), order=["Baby"]).build().tasks[0].train) == 3


def test_a_line_that_cannot_be_read_is_told_with_its_place(tmp_path):
    (tmp_path / "news").mkdir()
    for name in ("train", "test"):
        (tmp_path / "news" / f"{name}.jsonl").write_text(
            '{"tokens": ["a"], "tags": ["O"]}\n{broken\n', encoding="utf-8"
        )
    with pytest.raises(StreamError, match="line 2 can't be read"):
        NewsSocialAcademic(folder=str(tmp_path), order=["news"]).build()
