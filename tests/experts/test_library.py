"""A library: what it keeps, what it refuses, going back, and that nothing is lost."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from everlearn.errors import ConfigError, ModelError, StateError
from everlearn.experts import Head, Learned, Library, Merge
from everlearn.experts.lora import WEIGHTS
from everlearn.experts.profiles import Profiles
from everlearn.experts.store import Store
from everlearn.files import read_sealed, write_sealed
from everlearn.models.load import ModelConfig, load_model
from everlearn.types import Score
from support.experts import make_lora
from support.runs import assert_same
from support.tasks import prompt_task

SCORE = Score("sums", "exact_match", 0.75, 0.3, 0.95, 4, (1.0, 1.0, 1.0, 0.0))


def vector(seed: int, dimension: int = 8) -> torch.Tensor:
    return torch.randn(dimension, generator=torch.Generator().manual_seed(seed))


def add(library: Library, seed: int, **options: object):
    learned = Learned(task=f"task_{seed}", n_rows=10 + seed, prototype=vector(seed))
    return library.add(make_lora(library.base, seed), f"number {seed}", learned=[learned], **options)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_added_is_there_when_the_library_is_opened_again(library, still):
    learned = [Learned(task="sums", n_rows=12, score=SCORE, prototype=vector(0))]
    first = library.add(make_lora(library.base, 0), "adds numbers", tag="exp/sums", learned=learned)
    second = library.add(make_lora(library.base, 1), "adds more", origin="forked", parents=[0])
    library.used(first.number, {"right": True})
    opened = Library.open(library.path, still)
    assert [expert.number for expert in opened.experts] == [0, 1]
    expert = opened.expert(0)
    assert expert == library.expert(0)
    assert (expert.tag, expert.description, expert.origin, expert.rank) == ("exp/sums", "adds numbers", "created", 2)
    assert expert.targets == ("q_proj", "v_proj")
    assert expert.rows == {"sums": 12}
    assert expert.scores == {"sums": {"metric": "exact_match", "value": 0.75, "low": 0.3, "high": 0.95, "n": 4}}
    assert (expert.uses, expert.outcomes) == (1, ({"right": True},))
    assert (second.parents, second.origin) == ((0,), "forked")
    assert_same(opened.lora(0).tensors, make_lora(library.base, 0).tensors)
    assert_same(opened.profile(0), {"sums": vector(0)})
    assert [event["event"] for event in opened.events()] == ["begun", "created", "forked"]


def test_the_record_beside_the_weights_is_what_the_library_knows(library):
    expert = add(library, 0, tag="a/b")
    library.used(0, 1)
    told = read_sealed(library.folder(0) / "expert.json")
    assert told.pop("base") == library.base.fingerprint
    assert told == json.loads(json.dumps(vars(library.expert(0))))
    assert told["uses"] == expert.uses + 1


def test_another_base_is_refused(library, bert, tmp_path):
    shutil.copytree(library.base.name, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    (tmp_path / "other" / "config.json").write_text(json.dumps(config | {"rope_theta": 500.0}))
    other = load_model(ModelConfig(str(tmp_path / "other")), [prompt_task(0)])
    with pytest.raises(ModelError, match=r"belongs to another base model than .*\. Got 'config\.json'"):
        Library.open(library.path, other)


@pytest.mark.parametrize("description", ["", " \n"])
def test_an_empty_description_is_refused(library, description):
    with pytest.raises(ConfigError, match="expert: description: is empty"):
        library.add(make_lora(library.base, 0), description)
    assert len(library) == 0
    assert files_of(library.path / "experts") == {}


def test_what_does_not_fit_is_refused_and_leaves_nothing(library, still, tmp_path):
    narrow = Library.create(tmp_path / "narrow", still, rank=2, targets=["q_proj"])
    with pytest.raises(ModelError, match=r"expert 0: the library takes ranks up to 2\. Got 4"):
        narrow.add(make_lora(narrow.base, 0, rank=4, targets=["q_proj"]), "too large")
    with pytest.raises(ModelError, match=r"stands on layers that the library doesn't take\. Got \['v_proj'\]"):
        narrow.add(make_lora(narrow.base, 0), "elsewhere")
    wrong = make_lora(library.base, 0)
    wrong.tensors.popitem()
    with pytest.raises(ModelError, match="1 of 8 weights are missing"):
        library.add(wrong, "incomplete")
    for each in (narrow, library):
        assert not list((each.path / "experts").iterdir())
        assert [event["event"] for event in each.events()] == ["begun"]


def test_adapting_keeps_number_profile_and_earlier_weights(library):
    before = add(library, 0)
    first_weights = (library.folder(0) / WEIGHTS).read_bytes()
    after = library.adapt(0, make_lora(library.base, 5), Learned(task="more", n_rows=3, prototype=vector(9)))
    assert (after.number, after.tasks, after.rows) == (0, ("task_0", "more"), {"task_0": 10, "more": 3})
    assert after.earlier == (before.folder,)
    assert (library.path / "experts" / before.folder / WEIGHTS).read_bytes() == first_weights
    assert_same(library.lora(0).tensors, make_lora(library.base, 5).tensors)
    assert_same(library.profile(0), {"task_0": vector(0), "more": vector(9)})
    assert library.prune() > 0
    assert [path.name for path in (library.path / "experts").iterdir()] == [after.folder]
    assert_same(Library.open(library.path).lora(0).tensors, make_lora(library.base, 5).tensors)


def test_retired_experts_are_out_of_use_and_pruned_ones_out_of_the_folder(library):
    for seed in range(3):
        add(library, seed)
    library.retire(1, "dominated by 0")
    assert [expert.number for expert in library.experts] == [0, 2]
    assert library.prototypes().experts == [0, 2]
    assert library.lora(1).rank == 2
    with pytest.raises(ConfigError, match=r"expert 1: is retired\. Got 'dominated by 0'"):
        library.retire(1)
    n_bytes = sum(len(content) for content in files_of(library.path / "experts" / "000001").values())
    assert library.prune(2) >= n_bytes
    assert [path.name for path in (library.path / "experts").iterdir()] == ["000000"]
    with pytest.raises(StateError, match="expert 1: its weights were pruned"):
        library.lora(1)
    opened = Library.open(library.path)
    assert {number: expert.status for number, expert in opened.records.items()} == {
        0: "live", 1: "pruned", 2: "pruned",
    }  # fmt: skip
    assert set(Profiles(library.path / "profiles.safetensors").rows) == {0}
    assert add(library, 7).number == 3


def test_a_later_task_never_changes_an_earlier_prototype(library):
    wanted = {}
    with library.changing():
        for seed in range(100):
            add(library, seed)
            wanted[seed, f"task_{seed}"] = vector(seed).numpy().tobytes()
    for n, number in enumerate([3, 3, 50, 99, 0]):
        library.add_prototype(number, f"later_{n}", vector(1000 + n))
        wanted[number, f"later_{n}"] = vector(1000 + n).numpy().tobytes()
    library.adapt(50, make_lora(library.base, 500), Learned(task="much later", prototype=vector(2000)))
    wanted[50, "much later"] = vector(2000).numpy().tobytes()
    for opened in (library, Library.open(library.path)):
        found = {
            (expert.number, task): prototype.numpy().tobytes()
            for expert in opened.experts
            for task, prototype in opened.profile(expert.number).items()
        }
        assert found == wanted
    told = library.prototypes()
    assert told.vectors.shape == (106, 8)
    assert list(zip(told.experts, told.tasks, strict=True)) == [
        (number, task) for number, task in sorted(wanted, key=lambda key: key[0])
    ]
    told.vectors.zero_()
    assert torch.equal(library.profile(3)["task_3"], vector(3))


def test_a_prototype_is_refused_by_name_and_nothing_changes(library):
    add(library, 0)
    with pytest.raises(ConfigError, match=r"task 'x': a prototype needs 8 numbers.*Got \(5,\)"):
        library.add_prototype(0, "x", torch.ones(5))
    with pytest.raises(ConfigError, match="task 'task_0': has a prototype already"):
        library.add_prototype(0, "task_0", torch.ones(8))
    for broken in (torch.zeros(8), torch.full((8,), torch.nan)):
        with pytest.raises(ConfigError, match="can't be compared"):
            library.add_prototype(0, "x", broken)
    with pytest.raises(ConfigError, match=r"there is no such expert\. Got 4\. Known: 0"):
        library.add_prototype(4, "x", torch.ones(8))
    before = files_of(library.path)
    with pytest.raises(ConfigError, match="needs 8 numbers"):
        library.add(make_lora(library.base, 1), "other", learned=[Learned(task="x", prototype=torch.ones(3))])
    assert {k: v for k, v in files_of(library.path).items() if k != "lock"} == {
        k: v for k, v in before.items() if k != "lock"
    }
    assert list(library.profile(0)) == ["task_0"]


@pytest.mark.parametrize("value", [float("nan"), torch.ones(1), {1, 2}])
def test_what_is_no_json_is_refused_before_it_is_kept(library, value):
    add(library, 0)
    with pytest.raises(ConfigError, match="outcome: can't be kept"):
        library.used(0, value)
    with pytest.raises(ConfigError, match="log: decided: can't be kept"):
        library.log("decided", p=value)
    assert Library.open(library.path).expert(0).uses == 0


def test_all_of_a_change_or_nothing(library):
    add(library, 0)
    before = files_of(library.path)

    def work():
        with library.changing():
            add(library, 1)
            library.adapt(0, make_lora(library.base, 6), Learned(task="more", prototype=vector(6)))
            library.keep_router({"w": torch.ones(2)})
            library.log("decided", action="create")
            library.expert(77)

    with pytest.raises(ConfigError, match="there is no such expert"):
        work()
    assert files_of(library.path) == before
    assert [expert.number for expert in library.experts] == [0]
    assert add(library, 2).number == 1


def test_a_full_disk_leaves_what_was(library, monkeypatch):
    add(library, 0)
    before = files_of(library.path)
    write = write_sealed

    def full(path, value):
        if path.name == "library.json":
            raise StateError("no space")
        write(path, value)

    monkeypatch.setattr("everlearn.experts.store.write_sealed", full)
    with pytest.raises(StateError, match="no space"):
        add(library, 1)
    monkeypatch.undo()
    left = files_of(library.path)
    assert left.pop("profiles.safetensors") != before.pop("profiles.safetensors")  # a row that nothing refers to
    assert left == before
    assert_same(library.profile(0), {"task_0": vector(0)})
    assert add(library, 2).number == 1
    assert_same(Library.open(library.path).profile(1), {"task_2": vector(2)})
    assert set(Profiles(library.path / "profiles.safetensors").rows) == {0, 1}


def test_heads_go_with_their_expert(library):
    heads = [Head(torch.randn(n, 4), bias, tuple("abc"[:n])) for n, bias in ((2, torch.randn(2)), (3, None))]
    library.add(make_lora(library.base, 0), "classes", learned=[Learned(task="first", head=heads[0])])
    library.adapt(0, make_lora(library.base, 1), Learned(task="second", head=heads[1]))
    opened = Library.open(library.path)
    for task, head in zip(("first", "second"), heads, strict=True):
        found = opened.head(0, task)
        assert found.labels == head.labels
        assert torch.equal(found.weight, head.weight)
        assert found.bias is None if head.bias is None else torch.equal(found.bias, head.bias)
    with pytest.raises(ConfigError, match=r"has no head for this task\. Got 'third'. Tasks with a head: first, second"):
        opened.head(0, "third")
    with pytest.raises(ConfigError, match="doesn't fit its 2 labels"):
        Head(torch.zeros(3, 4), None, ("a", "b"))


@pytest.mark.parametrize("damage", ["cut", "altered", "missing"])
def test_a_damaged_expert_is_named_and_the_others_stay_usable(library, damage):
    for seed in range(3):
        add(library, seed)
    path = library.folder(1) / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if damage != "missing":
        path.write_bytes(content if damage == "altered" else content[:-8])
    opened = Library.open(library.path)
    assert set(opened.damaged()) == (set() if damage == "altered" else {1})  # bytes are compared when it is loaded
    with pytest.raises(StateError, match=r"expert 1: .*000001/adapter_model\.safetensors: is (damaged|missing)"):
        opened.lora(1)
    assert len(opened.problems(1)) == 1
    assert opened.lora(0).rank == opened.lora(2).rank == 2
    assert add(opened, 7).number == 3
    assert opened.retire(1, "damaged").status == "retired"


def test_a_damaged_library_file_is_one_sentence(library):
    place = library.path / "library.json"
    place.write_text(place.read_text().replace('"rank": 8', '"rank": 9'))
    with pytest.raises(StateError, match=r"library\.json: is damaged \(its checksum differs\)"):
        Library.open(library.path)
    place.unlink()
    with pytest.raises(StateError, match="library: there is none in the folder"):
        Library.open(library.path)


def test_damaged_profiles_are_one_sentence(library):
    add(library, 0)
    path = library.path / "profiles.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    opened = Library.open(library.path)
    with pytest.raises(StateError, match=r"profiles\.safetensors: is damaged"):
        opened.profile(0)
    assert opened.lora(0).rank == 2
    path.write_bytes(b"nonsense")
    with pytest.raises(StateError, match=r"profiles\.safetensors: can't be read"):
        Library.open(library.path).prototypes()


def test_a_folder_in_use_is_refused(still, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="library: the folder is not empty"):
        Library.create(tmp_path, still)


def test_two_writers_take_turns(library):
    other = Library.open(library.path)
    add(library, 0)
    assert add(other, 1).number == 1  # what the first wrote is read before
    library.add_prototype(1, "more", vector(5))
    assert [expert.number for expert in library.experts] == [0, 1]
    with library.changing(), pytest.raises(StateError, match="another process is changing this library"):
        other.used(0)


def test_going_back_and_on_again(library):
    add(library, 0)
    before = json.loads(json.dumps(library.snapshot()))
    library.adapt(0, make_lora(library.base, 5), Learned(task="more", prototype=vector(9)))
    add(library, 1)
    library.keep_router({"w": torch.ones(2)})
    after = library.snapshot()
    library.restore(before)
    assert [expert.number for expert in library.experts] == [0]
    assert library.router() is None
    assert_same(library.lora(0).tensors, make_lora(library.base, 0).tensors)
    assert add(library, 2).number == 2  # numbers aren't given twice
    library.restore(after)
    assert [expert.number for expert in library.experts] == [0, 1]
    assert_same(library.lora(0).tensors, make_lora(library.base, 5).tensors)
    assert_same(library.profile(0), {"task_0": vector(0), "more": vector(9)})
    assert_same(library.router(), {"w": torch.ones(2)})
    library.prune()
    with pytest.raises(StateError, match="what was then has been pruned"):
        library.restore(before)


def test_what_is_forgotten_is_made_again_alike(library):
    add(library, 0)
    before = library.snapshot()

    def work():
        library.adapt(0, make_lora(library.base, 5), Learned(task="more", prototype=vector(9)))
        library.keep_router({"w": vector(3)})
        return add(library, 1)

    work()
    wanted = {k: v for k, v in files_of(library.path).items() if not k.endswith((".json", ".jsonl", "lock"))}
    library.restore(before, forget=True)
    assert not (library.path / "experts" / "000001").exists()
    assert work().number == 1
    found = {k: v for k, v in files_of(library.path).items() if not k.endswith((".json", ".jsonl", "lock"))}
    assert found == wanted | {"profiles.safetensors": found["profiles.safetensors"]}
    assert_same(library.profile(1), {"task_1": vector(1)})


def test_what_a_router_keeps_stands_in_the_folder(library):
    library.keep_router({"weights": [vector(0)], "trials": {"a": 1}})
    library.keep_router({"weights": [vector(1)], "trials": {"a": 2}})
    found = Library.open(library.path).router()
    assert_same({"weights": found["weights"][0]}, {"weights": vector(1)})
    assert found["trials"] == {"a": 2}
    library.prune()
    assert len(list((library.path / "router").iterdir())) == 1


def test_a_crash_before_the_log_and_the_copies_is_made_good(library, monkeypatch):
    add(library, 0)
    monkeypatch.setattr(Store, "_finish_last", lambda store: None)
    library.used(0, "well")
    library.log("decided", action="reuse")
    monkeypatch.undo()
    opened = Library.open(library.path)
    assert read_sealed(library.folder(0) / "expert.json")["uses"] == 0
    opened.log("next")
    assert [event["event"] for event in opened.events()][-2:] == ["decided", "next"]
    assert opened.expert(0).uses == 1


def test_merging_is_one_expert_with_all_profiles(library):
    for seed in range(2):
        add(library, seed)
    with library.changing():
        made = library.merge([0, 1], "both", Merge("cat"), tag="ab")
        library.retire(0, f"merged into {made.number}")
    assert (made.origin, made.parents, made.rank, made.tasks) == ("merged", (0, 1), 4, ("task_0", "task_1"))
    assert_same(library.profile(2), {"task_0": vector(0), "task_1": vector(1)})
    assert [expert.number for expert in library.experts] == [1, 2]
    event = library.events()[-2]
    assert (event["event"], event["parents"], event["how"]["kind"]) == ("merged", [0, 1], "cat")
    with pytest.raises(ConfigError, match="expert 0: is retired"):
        library.merge([0, 1], "again")


def test_a_thousand_experts_open_within_a_second(library, monkeypatch):
    """benchmarks/experts.py does it with weights of their own."""
    first = add(library, 0)
    names = [f"{number:06d}" for number in range(1000)]
    monkeypatch.setattr(Store, "_finish_last", lambda store: None)
    with library.changing():
        for name in names[1:]:
            shutil.copytree(library.folder(0), library.path / "experts" / name, copy_function=os.link)
        store = library._store
        rows = [store.add_row(vector(number)) for number in range(1000)]
        experts = {n: replace(first, number=n, folder=names[n], prototypes={f"task {n}": rows[n]}) for n in range(1000)}
        store.state = replace(store.state, next_expert=1000, experts=experts)
    monkeypatch.undo()
    started = time.process_time()
    opened = Library.open(library.path)
    assert opened.prototypes().vectors.shape == (1000, 8)
    assert opened.damaged() == {}
    assert time.process_time() - started < 1
    assert len(opened) == 1000
    assert opened.lora(777).rank == 2
