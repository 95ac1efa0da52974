"""What holds for every kind of run: the frame's promises, whatever is learned. Kills: test_kill.py."""

import errno
import json
import re
import shutil
import signal
from pathlib import Path

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from everlearn.cli import main
from everlearn.errors import ConfigError, Paused, StateError
from everlearn.listener import Listener
from everlearn.runs import folder_kind, is_finished, read_recipe, resume, run, run_kinds, run_or_resume
from everlearn.state import checkpoints, read_json
from support.recipes import final_weights, language_recipe, plain_recipe, reinforcement_recipe
from support.runs import assert_same

KINDS = ("meta", "online", "reinforcement", "supervised")
UNLIKE = ("train_s", "eval_s", "episode_s", "task_s", "seconds", "peak_memory_bytes", "env", "evaluation_s")


@pytest.fixture(scope="module")
def recipes(llama, tmp_path_factory):
    """Return a small recipe of each kind, with two seeds, saved after each step."""
    common = {"seeds": [3, 4], "checkpoint": {"every_s": None, "every_steps": 1}, "device": "cpu"}
    rows = language_recipe([], llama, tmp_path_factory.mktemp("rows"))
    return {
        "supervised": plain_recipe(["replay", "ewc"], **common),
        "online": {
            "source": {"name": "support.sources:Sums"},
            "model": {"name": str(llama), "adapter": {"rank": 2}},
            "learner": {"learning_rate": 0.01},
            "strategies": ["replay"],
            "episodes": 4,
            "boundary": 2,
            "evaluation": {"n": 4, "interval": 2},
            **common,
        },
        "meta": {
            "stream": rows["stream"],
            "model": rows["model"],
            "held_out": [rows["stream"]["tasks"][1]["name"]],
            "learner": {"first_order": True, "adaptation_steps": 1, "meta_batch_size": 1, "n_support": 4, "n_query": 4},
            "n_steps": 2,
            "evaluation": {"steps": [0, 1], "rates": {"sgd": [0.1]}},
            **common,
        },
        "reinforcement": reinforcement_recipe(["replay"], llama, tmp_path_factory.mktemp("problems"), **common),
    }


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(kind, recipes, tmp_path_factory):
    """Return the folder of a run that was never stopped."""
    out = tmp_path_factory.mktemp(kind) / "run"
    run(recipes[kind], out)
    return out


def comparable(value):
    """Return JSON without what differs from run to run."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key not in UNLIKE}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def check_same(out: Path, whole: Path) -> None:
    for seed in (3, 4):
        assert_same(final_weights(out, seed), final_weights(whole, seed))
    assert comparable(read_json(out / "results.json")) == comparable(read_json(whole / "results.json"))
    logs = folder_kind(whole).log_names
    for name in logs:
        first, second = ([json.loads(text) for text in (one / name).read_text().splitlines()] for one in (out, whole))
        assert comparable(first) == comparable(second)


class Interrupting(Listener):
    """Sends this process SIGINT, as Ctrl-C does, at the n-th event of any sort."""

    def __init__(self, left):
        self.left = left

    def step(self, done, loss):
        self._count()

    def scoring(self, task):
        self._count()

    def episode(self, done, n_episodes, episode):
        self._count()

    def _count(self):
        self.left -= 1
        if not self.left:
            signal.raise_signal(signal.SIGINT)


def test_every_kind_is_here():
    assert {kind.name for kind in run_kinds()} == set(KINDS)


def test_its_recipe_tells_its_kind_and_is_written_so_that_it_is_read_back(kind, recipes, whole):
    found, recipe = read_recipe(recipes[kind])
    assert found.name == kind
    assert read_recipe({**recipes[kind], "kind": kind}) == (found, recipe)
    assert yaml.safe_load((whole / "recipe.yaml").read_text())["kind"] == kind
    assert read_recipe(whole / "recipe.yaml")[0] is folder_kind(whole) is found


def test_results_and_a_final_state_of_each_seed_are_there(whole):
    assert is_finished(whole)
    assert sorted(path.name for path in (whole / "final").iterdir()) == ["seed-3", "seed-4"]
    assert checkpoints(whole / "checkpoints")
    assert resume(whole) == read_json(whole / "results.json")  # nothing is left to do


def test_the_same_recipe_gives_the_same(kind, recipes, whole, tmp_path):
    run(recipes[kind], tmp_path / "again")
    check_same(tmp_path / "again", whole)


@pytest.mark.parametrize("event", [2, 5, 11])
def test_paused_anywhere_it_goes_on_to_the_same_end(event, kind, recipes, whole, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Paused, match=str(tmp_path)):
        run(recipes[kind], tmp_path / "run", listener=Interrupting(event))
    assert signal.getsignal(signal.SIGINT) is handler
    assert not is_finished(tmp_path / "run")
    run_or_resume(recipes[kind], tmp_path / "run")
    check_same(tmp_path / "run", whole)


def test_a_folder_of_before_without_the_kind_goes_on(kind, recipes, whole, tmp_path):
    with pytest.raises(Paused):
        run(recipes[kind], tmp_path / "run", listener=Interrupting(5))
    path = tmp_path / "run" / "recipe.yaml"
    content = {key: value for key, value in yaml.safe_load(path.read_text()).items() if key not in ("kind", "track")}
    path.unlink()
    (tmp_path / "run" / ("meta.yaml" if kind == "meta" else "recipe.yaml")).write_text(yaml.safe_dump(content))
    assert folder_kind(tmp_path / "run").name == kind
    resume(tmp_path / "run")
    check_same(tmp_path / "run", whole)


def test_a_full_disk_stops_it_and_it_goes_on(kind, recipes, whole, tmp_path, monkeypatch):
    calls = {"left": 2}

    def save(*arguments, **options):
        calls["left"] -= 1
        if calls["left"] == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_file(*arguments, **options)

    from everlearn import state

    save_file = state.save_file
    monkeypatch.setattr(state, "save_file", save)
    with pytest.raises(StateError, match=r"can't be written \(No space left on device\)"):
        run(recipes[kind], tmp_path / "run")
    resume(tmp_path / "run")
    check_same(tmp_path / "run", whole)


def test_a_taken_folder_is_refused_and_kept(kind, recipes, tmp_path):
    (tmp_path / "mine.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="out: the folder is not empty"):
        run(recipes[kind], tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(StateError, match="folder: there is no run in the folder"):
        resume(tmp_path)


def test_several_processes_are_refused_where_one_learns(kind, recipes, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    what = "processes: 2 process" if kind in ("supervised", "reinforcement") else f"{kind}: learns in one process"
    with pytest.raises(ConfigError, match=what):
        run(recipes[kind], tmp_path / "run")


def test_a_recipe_may_leave_the_kind_open_or_name_none_that_is(kind, recipes, tmp_path, capsys):
    assert read_recipe({**recipes[kind], "kind": None})[0].name == kind
    for named in (5, True, ["meta"], {"a": 1}, "", ":", "../a:B", "os:path"):
        with pytest.raises(ConfigError, match=r"^kind: "):
            read_recipe({**recipes[kind], "kind": named})


def test_damaged_files_are_named(kind, recipes, whole, tmp_path):
    with pytest.raises(Paused):
        run(recipes[kind], tmp_path / "run", listener=Interrupting(9))
    newest = checkpoints(tmp_path / "run" / "checkpoints")[-1].relative_to(tmp_path / "run")
    names = folder_kind(whole).log_names or ("made_of.json",)
    logs = [name for name in names if (tmp_path / "run" / name).stat().st_size]
    damaged = [(name, content) for name in logs for content in (b"", b"\xff\xfe\n" * 9000)]
    damaged += [(name, content) for name in logs for content in (b"[]\n" * 9000,)]
    damaged += [("results.json", content) for content in (b"", b"{}", b"[]", b"null", b'{"complete": tr')]
    damaged += [(newest / "values.json", content) for content in (b"", b"[]", b'{"sha256": ')]
    damaged += [("recipe.yaml", content) for content in (b"", b"- 1", b"\xff", b"a: b: c")]
    for number, (name, content) in enumerate(damaged):
        folder = tmp_path / f"damaged-{number}"
        shutil.copytree(tmp_path / "run", folder)
        (folder / name).write_bytes(content)
        with pytest.raises((StateError, ConfigError), match=re.escape(str(folder / name).removesuffix("values.json"))):
            resume(folder)


def test_results_that_were_lost_are_written_anew(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    (folder / "results.json").write_text("")
    with pytest.raises(StateError, match=r"results\.json: can't be read .* Delete it, then: everlearn resume"):
        resume(folder)
    (folder / "results.json").unlink()
    resume(folder)
    check_same(folder, whole)


def test_trackers_are_told(kind, recipes, tmp_path):
    run({**recipes[kind], "track": ["tensorboard"], "seeds": [3]}, tmp_path / "run")
    events = EventAccumulator(str(next((tmp_path / "run").rglob("events.out.tfevents*")).parent)).Reload()
    assert any(len(events.Scalars(name)) >= 2 for name in events.Tags()["scalars"])


def test_it_is_shown_and_compared(kind, whole, tmp_path, capsys):
    assert main(["resume", str(whole)]) == 0
    assert "report.html" in capsys.readouterr().out.replace("\n", "")
    other = tmp_path / "other"
    other.symlink_to(whole)
    assert main(["compare", str(whole), str(other), "--out", str(tmp_path / "side")]) == 0
    assert "<h1" in (tmp_path / "side" / "report.html").read_text()
    assert list((tmp_path / "side").glob("*.png"))
    capsys.readouterr()
    assert main(["compare", str(whole), f"{whole}/", "--out", str(tmp_path / "side")]) == 1
    assert "compare: a folder is named twice" in capsys.readouterr().err
    assert main(["compare", str(whole), "--out", str(whole)]) == 1
    assert "--out: is the folder of a run" in capsys.readouterr().err


def test_a_log_without_a_recipe_is_compared_too(recipes, tmp_path, capsys):
    run(recipes["supervised"], tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").unlink()
    assert main(["compare", str(tmp_path / "run"), "--out", str(tmp_path / "side")]) == 0
    assert main(["resume", str(tmp_path / "run")]) == 0  # nothing is left to do
    (tmp_path / "run" / "results.json").unlink()
    capsys.readouterr()
    assert main(["resume", str(tmp_path / "run")]) == 1
    assert "recipe.yaml: can't be read" in capsys.readouterr().err


def test_runs_of_two_kinds_and_unknown_kinds_are_refused(recipes, tmp_path, capsys):
    for name in ("supervised", "meta"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text(yaml.safe_dump(recipes[name]))
    both = [str(tmp_path / name) for name in ("supervised", "meta")]
    assert main(["compare", *both, "--out", str(tmp_path / "side")]) == 1
    assert "compare: the runs are not of one kind" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"kind: is no run\. Got 'onlin'\. Did you mean 'online'"):
        run({**recipes["online"], "kind": "onlin"}, tmp_path / "new")
    with pytest.raises(ConfigError, match=r"kind: isn't begun by a recipe\. Got 'home'"):
        run({**recipes["online"], "kind": "home"}, tmp_path / "new")
    with pytest.raises(ConfigError, match=r"source: is unknown"):
        run({**recipes["online"], "kind": "supervised"}, tmp_path / "new")
    assert not (tmp_path / "new").exists()
