"""`everlearn bench`: its options, its exit codes, the page about it, and the grids of the project."""

import re
from pathlib import Path

import pytest
import yaml

from everlearn.bench import course
from everlearn.bench import probe as probing
from everlearn.bench.grid import read_grid
from everlearn.bench.start import START
from everlearn.cli import main
from support.grids import in_this_process, write_grid

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "bench.md").read_text(encoding="utf-8")
SMALL = ("stream.n_train=4", "stream.n_validation=0", "stream.n_eval=4", "learner.epochs=1")


@pytest.fixture(autouse=True)
def inline(monkeypatch):
    monkeypatch.setattr(course, "processes", in_this_process)


def test_the_pages_commands_run_as_they_stand(tmp_path, monkeypatch, capsys):
    """But for the size of the tasks, the seeds and the methods, which a test has no time for."""
    monkeypatch.chdir(tmp_path)
    grid, run = re.search(r"```\n(everlearn bench --init .*?)```", PAGE, re.DOTALL).group(1).strip().splitlines()
    assert main(grid.split()[1:]) == 0
    assert re.search(r"The grid:\n\n```yaml\n(.*?)```", PAGE, re.DOTALL).group(1) == START
    assert main(grid.split()[1:]) == 1  # it's there already
    content = {**yaml.safe_load(START), "methods": ["none", "replay"], "seeds": [0], "threads": 1}
    Path("grid.yaml").write_text(yaml.safe_dump(content))
    small = [part for setting in SMALL for part in ("--set", setting)]
    assert main([*run.replace("--jobs 2", "--jobs 1").split()[1:], *small]) == 0
    told = capsys.readouterr().out
    assert "[2/2] replay/seed-0: done" in told
    assert "replay − none" in told
    assert Path("runs/bench/analysis/analysis.html").exists()
    assert main(["bench", "--analyse", "runs/bench"]) == 0


def test_the_start_makes_five_lines_and_eight_cells(tmp_path):
    assert len(START.splitlines()) == 5
    (tmp_path / "grid.yaml").write_text(START)
    assert len(read_grid(tmp_path / "grid.yaml")[1]) == 8


def test_a_failed_cell_makes_the_exit_code_1(tmp_path, capsys):
    path = write_grid(tmp_path, methods=["none", "l2p"], seeds=[0])
    assert main(["bench", str(path), "--out", str(tmp_path / "out")]) == 1
    assert "failed: l2p/seed-0: " in capsys.readouterr().out


def test_a_dry_run_lists_cells_with_times_and_keeps_nothing(tmp_path, capsys):
    path = write_grid(tmp_path, methods=["none", "l2p"])
    assert main(["bench", str(path), "--out", str(tmp_path / "out"), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"none\s*│\s*0, 1\s*│\s*[\d.]+ (s|min)", told)
    assert "fails" in told
    assert "4 cells" in " ".join(told.split())
    assert not (tmp_path / "out").exists()


def test_a_probe_of_an_online_run_tells_its_time(llama, monkeypatch):
    recipe = {
        "source": {"name": "support.sources:Sums"}, "model": {"name": str(llama), "adapter": {"rank": 2}},
        "device": "cpu", "episodes": 400, "evaluation": {"n": 4, "interval": 400}, "seeds": [0],
    }  # fmt: skip
    monkeypatch.setattr(probing, "PROBE_S", 1.0)
    found = probing.probe(recipe)
    assert isinstance(found, float) or "first step" in found


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no grid is named"),
        (["none.yaml"], "none.yaml"),
        (["grid.yaml", "--engine", "spark"], "--engine: is unknown"),
        (["grid.yaml", "--ray-address", "a:1"], "--ray-address: is of --engine ray"),
        (["grid.yaml", "--hours", "0"], "--hours: is out of range"),
        (["--analyse", "."], "holds no experiment"),
    ],
)
def test_wrong_options_get_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.yaml").write_text(START)
    assert main(["bench", *arguments]) == 1
    told = capsys.readouterr().err
    assert message in told
    assert len(told.strip().splitlines()) == 1


def test_the_kept_grids_are_those_of_the_methods_page():
    suites = yaml.safe_load((ROOT / "benchmarks" / "methods.yaml").read_text(encoding="utf-8"))
    for path in sorted((ROOT / "recipes" / "bench").glob("*.yaml")):
        grid, cells = read_grid(path)
        suite = suites[path.stem]
        assert grid.methods.items() <= suite["methods"].items(), path
        assert Path(suite["recipe"]).name == Path(grid.recipe).name
        assert grid.set == suite.get("set", [])
        assert grid.set_for == suite.get("set_for", {})
        assert len(cells) == len(grid.methods) * len(grid.seeds)
