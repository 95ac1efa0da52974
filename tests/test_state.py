import errno
import json
import math
import os
import random
import shutil
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

from everlearn import state
from everlearn.errors import ConfigError, StateError
from everlearn.seeds import seeded
from everlearn.state import (
    beginning_in,
    check_new_folder,
    checkpoints,
    clear_leftovers,
    clear_unnamed,
    load_state,
    load_value,
    make_folder,
    named_file,
    named_files,
    pack,
    read_json,
    rng_state,
    save_checkpoint,
    save_named,
    save_state,
    save_value,
    set_rng_state,
    unpack,
    write_file,
    write_json,
)

TENSORS = {"a": torch.arange(3.0), "b/c": torch.tensor([1, 2])}


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    write_file(path, b"old")
    write_file(path, b"new and longer")
    assert path.read_bytes() == b"new and longer"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch, broken):
    path = tmp_path / "file"
    write_file(path, b"old")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(StateError, match=r"can't be written .*No space left.*stored before is untouched"):
        write_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_json_comes_back_and_nan_is_refused(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None, "ü"]})
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "ü"]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a.json", {"a": math.nan})
    assert read_json(tmp_path / "a.json") == {"a": [1, None, "ü"]}


@pytest.mark.parametrize("content", [None, b"{", b"\xff\xfe"])
def test_unreadable_json_is_a_state_error(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(StateError, match=r"a\.json: can't be read"):
        read_json(tmp_path / "a.json")


def test_pack_and_unpack_are_inverse():
    value = {
        "tensor": torch.randn(2),
        "nested": {"list": [torch.ones(1), 3, "x", None, True], "ints": {0: torch.zeros(1), 7: {"deep": 1.5}}},
        "empty": {"dict": {}, "list": []},
    }
    tensors = {}
    plain = pack(value, tensors, "s")
    back = unpack(json.loads(json.dumps(plain)), tensors)
    assert torch.equal(back["tensor"], value["tensor"])
    assert torch.equal(back["nested"]["ints"][0], torch.zeros(1))
    assert back["nested"]["ints"][7] == {"deep": 1.5}
    assert back["nested"]["list"][1:] == [3, "x", None, True]
    assert back["empty"] == value["empty"]


def test_a_value_is_saved_and_loaded_whole(tmp_path):
    value = {"weights": {"w": torch.ones(2)}, "n": [1, None]}
    values = save_value(tmp_path / "state", value, "run")
    assert values == load_state(tmp_path / "state")[1]
    found = load_value(tmp_path / "state")
    assert torch.equal(found["weights"]["w"], torch.ones(2))
    assert found["n"] == [1, None]


def test_packed_tensors_are_copies_and_names_do_not_collide():
    tensor, tensors = torch.zeros(2), {}
    value = {"a/b": tensor, "a": {"b": torch.ones(2)}, "same": tensor}
    plain = pack(value, tensors, "s")
    tensor.add_(5)
    back = unpack(plain, tensors)
    assert torch.equal(back["a/b"], torch.zeros(2))
    assert torch.equal(back["a"]["b"], torch.ones(2))
    assert len(tensors) == 3


@pytest.mark.parametrize("make", [torch.optim.AdamW, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)])
def test_an_optimizer_s_state_comes_back(make, tmp_path):
    def model_and_optimizer():
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        return network, make(network.parameters())

    def steps(network, optimizer, n):
        for _ in range(n):
            network(torch.ones(1, 3)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    network, optimizer = model_and_optimizer()
    steps(network, optimizer, 2)
    tensors = {}
    values = pack({"optimizer": optimizer.state_dict(), "weights": network.state_dict()}, tensors, "s")
    save_state(tmp_path / "s", tensors, values)
    steps(network, optimizer, 2)
    loaded_tensors, loaded = load_state(tmp_path / "s")
    back = unpack(loaded, loaded_tensors)
    other, other_optimizer = model_and_optimizer()
    other.load_state_dict(back["weights"])
    other_optimizer.load_state_dict(back["optimizer"])
    steps(other, other_optimizer, 2)
    assert torch.equal(network.weight, other.weight)


def test_state_comes_back_and_is_never_overwritten(tmp_path):
    save_state(tmp_path / "s", TENSORS, {"n": 1})
    tensors, values = load_state(tmp_path / "s")
    assert values == {"n": 1}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
    with pytest.raises(StateError, match="exists"):
        save_state(tmp_path / "s", TENSORS, {"n": 2})


def altered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "tensors truncated": lambda folder: os.truncate(folder / state.TENSORS, 20),
    "tensors altered by one bit": lambda folder: altered(folder / state.TENSORS),
    "tensors missing": lambda folder: (folder / state.TENSORS).unlink(),
    "values truncated": lambda folder: os.truncate(folder / state.VALUES, 20),
    "values empty": lambda folder: os.truncate(folder / state.VALUES, 0),
    "values missing": lambda folder: (folder / state.VALUES).unlink(),
    "values of another shape": lambda folder: (folder / state.VALUES).write_text("[]"),
    "folder missing": shutil.rmtree,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_one_clear_error(damage, tmp_path):
    save_state(tmp_path / "s", TENSORS, {"n": 1})
    DAMAGE[damage](tmp_path / "s")
    with pytest.raises(StateError) as caught:
        load_state(tmp_path / "s")
    assert str(tmp_path / "s") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_checkpoints_count_up_and_two_are_kept(tmp_path):
    for number in range(5):
        save_checkpoint(tmp_path, TENSORS, {"n": number})
    assert [path.name for path in checkpoints(tmp_path)] == ["000003", "000004"]
    assert load_state(checkpoints(tmp_path)[-1])[1] == {"n": 4}
    assert checkpoints(tmp_path / "none") == []


@pytest.mark.parametrize("broken", ["save_file", "fsync_file", "fsync_folder", "file_sha256"])
def test_a_full_disk_leaves_the_last_good_checkpoint(broken, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, TENSORS, {"n": 0})

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(state, broken, full)
    with pytest.raises(StateError, match="No space left"):
        save_checkpoint(tmp_path, TENSORS, {"n": 1})
    monkeypatch.undo()
    assert load_state(checkpoints(tmp_path)[-1])[1]["n"] == 0
    assert not list(tmp_path.glob(".*"))


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


@pytest.mark.parametrize("step", ["mkdir", "save_file", "fsync_file", "file_sha256", "rename"])
def test_killed_while_writing_the_last_good_checkpoint_is_what_is_found(step, tmp_path, monkeypatch):
    save_checkpoint(tmp_path, TENSORS, {"n": 0})

    def killed(*arguments, **options):
        raise Killed

    if step == "rename":
        monkeypatch.setattr(os, "rename", killed)
    elif step == "mkdir":
        monkeypatch.setattr(Path, "mkdir", killed)
    else:
        monkeypatch.setattr(state, step, killed)
    monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: None)  # no clean-up after SIGKILL
    with pytest.raises(Killed):
        save_checkpoint(tmp_path, TENSORS, {"n": 1})
    monkeypatch.undo()
    assert [path.name for path in checkpoints(tmp_path)] == ["000000"]
    assert load_state(checkpoints(tmp_path)[-1])[1]["n"] == 0
    clear_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["000000"]
    save_checkpoint(tmp_path, TENSORS, {"n": 1})
    assert load_state(checkpoints(tmp_path)[-1])[1]["n"] == 1


@pytest.mark.parametrize("name", ["file", "file/below", "link", "n" * 300])
def test_a_folder_that_can_not_be_is_one_clear_error(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    if name in ("file", "n" * 300):
        with pytest.raises(ConfigError, match="out: can't be used"):
            check_new_folder(tmp_path / name)
    with pytest.raises(ConfigError, match="out: can't be used"):
        make_folder(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_random_numbers_go_on_where_they_were():
    def draw():
        return (
            random.random(),
            random.gauss(),
            numpy.random.rand(),
            numpy.random.standard_normal(),
            torch.rand(1).item(),
        )

    with seeded(0):
        draw()  # of the pairs that gauss and standard_normal make, the second half is kept for the next call
        kept = rng_state()
        first = draw()
        tensors = {}
        plain = json.loads(json.dumps(pack(kept, tensors, "rng")))
        set_rng_state(unpack(plain, tensors))
        assert draw() == first


def test_random_numbers_of_an_older_checkpoint_are_torch_s_alone():
    kept = {name: value for name, value in rng_state().items() if name in ("cpu", "cuda")}
    first = torch.rand(3)
    set_rng_state(kept)
    assert torch.equal(torch.rand(3), first)


def named(folder, content):
    return save_named(folder, ".txt", lambda path: path.write_bytes(content))


def test_a_file_is_named_by_its_bytes_and_checked_when_it_is_read(tmp_path):
    name = named(tmp_path / "new", b"abc")
    assert name == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad.txt"
    assert named(tmp_path / "new", b"abc") == name != named(tmp_path / "new", b"abd")
    assert named_file(tmp_path / "new", name).read_bytes() == b"abc"
    with pytest.raises(StateError, match="can't be read"):
        named_file(tmp_path, name)
    (tmp_path / "new" / name).write_bytes(b"x")
    with pytest.raises(StateError, match="is damaged"):
        named_file(tmp_path / "new", name)


def test_only_files_that_no_saved_state_refers_to_are_deleted(tmp_path):
    names = [named(tmp_path / "memory", content) for content in (b"a", b"b", b"c")]
    value = {"x": [{"y": {"__file__": names[0], "n": 1}}], "z": "__file__"}
    assert named_files(value) == {names[0]}
    save_state(tmp_path / "first", {}, pack(value, {}, "run"))
    save_state(tmp_path / "second", {}, {"__file__": names[1]})
    states = [tmp_path / "first", tmp_path / "second"]
    (tmp_path / "second" / "values.json").rename(tmp_path / "aside")
    clear_unnamed(tmp_path / "memory", states)  # what the second refers to can't be told
    assert len(list((tmp_path / "memory").iterdir())) == 3
    (tmp_path / "aside").rename(tmp_path / "second" / "values.json")
    clear_unnamed(tmp_path / "memory", states)
    assert sorted(path.name for path in (tmp_path / "memory").iterdir()) == sorted(names[:2])
    clear_unnamed(tmp_path / "nowhere", states)


def begin_and_fail(out, fill):
    with beginning_in(out):
        fill()
        raise ConfigError("no good")


@pytest.mark.parametrize("was_there", [True, False])
def test_a_run_that_is_refused_at_its_start_leaves_no_trace(tmp_path, was_there):
    out = tmp_path / "a" / "run"
    if was_there:
        out.mkdir(parents=True)

    def write():
        (out / "memory").mkdir()
        (out / "recipe.yaml").write_text("seed: 1")

    with pytest.raises(ConfigError, match="no good"):
        begin_and_fail(out, write)
    assert out.exists() == was_there
    with pytest.raises(ConfigError, match="no good"):
        begin_and_fail(out, lambda: save_checkpoint(out / "checkpoints", {}, {"done": 1}))
    assert len(checkpoints(out / "checkpoints")) == 1
