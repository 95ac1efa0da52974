import re

from rich.console import Console
from tests.report.conftest import joint_lines, write_log

from everlearn.report.table import (
    Grid,
    compare_table,
    cost_grid,
    matrix_grid,
    metrics_grid,
    to_markdown,
    to_rich,
)
from everlearn.report.views import load_views

TASKS = ["a", "b", "c"]


def printed(table, width=120):
    console = Console(width=width, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_the_table_holds_the_results(make_run):
    folder = make_run("plain", TASKS)
    (view,) = load_views({"plain": folder})
    entry = view.results["summary"]["average_accuracy"]
    text = printed(compare_table({"plain": folder}))
    assert f"{entry['mean']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]" in text
    assert "backward transfer" in text


def test_many_runs_are_rows_and_few_are_columns(make_run):
    folders = {f"run{i}": make_run(f"run{i}", TASKS) for i in range(5)}
    few = compare_table(dict(list(folders.items())[:2]))
    many = compare_table(folders)
    assert [column.header for column in few.columns] == ["", "run0", "run1"]
    assert many.columns[0].header == "run"


def test_plasticity_appears_with_joint_training(make_run, tmp_path):
    runs = {"plain": make_run("plain", TASKS), "joint": write_log(tmp_path / "j", joint_lines({0: TASKS}, 0.9, 60))}
    grid = metrics_grid(load_views(runs))
    assert grid.columns[-1] == "plasticity"
    assert grid.rows[1][-1] == "1.000"


def test_the_matrix_has_a_row_for_each_step_and_one_before(make_run):
    (view,) = load_views({"plain": make_run("plain", TASKS)})
    grid = matrix_grid(view)
    assert grid.columns == ("after learning", *TASKS)
    assert [row[0] for row in grid.rows] == ["before training", *TASKS]
    assert grid.rows[1][1] == f"{view.matrices[0].values[0, 0]:.3f}"


def test_cost_names_what_each_strategy_keeps(make_run):
    grid = cost_grid(load_views({"plain": make_run("plain", TASKS, ewc=2048)}))
    assert grid.rows[0][-1] == "ewc 2 KiB"


def test_an_unfinished_run_says_so(make_run):
    folder = make_run("cut", TASKS)
    lines = (folder / "results.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "results.jsonl").write_text("".join(lines[:9]), encoding="utf-8")
    assert "not finished" in printed(compare_table({"cut": folder}))


def test_hostile_names_stay_text():
    grid = Grid("[bold]t[/bold]", ("a|b", "c"), (("<script>", "[x](http://y)"), ("1\n2", "`")))
    text = to_markdown(grid)
    assert "<script>" not in text
    assert "1<br>2" in text
    assert "a\\|b" in text
    assert not re.search(r"(?<!\\)\[x", text)
    assert "[bold]t[/bold]" in printed(to_rich(grid))


def test_scores_that_are_no_accuracy_are_not_called_so(tmp_path):
    lines = joint_lines({0: TASKS}, 0.5, 20)
    for line in lines:
        if line["type"] == "score":
            line |= {"metric": "token_log_likelihood", "metrics": {"token_log_likelihood": line["value"]}}
    (view,) = load_views({"text": write_log(tmp_path / "text", lines)})
    grid = metrics_grid([view])
    assert "average score" in grid.columns
    assert "average accuracy" not in grid.columns
    assert "log-likelihood of a token" in grid.note
    assert "log-likelihood of a token" in matrix_grid(view).note
