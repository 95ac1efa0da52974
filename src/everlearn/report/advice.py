"""What trials of several methods say: the trade-off as a table and a picture, and a recommendation in sentences."""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from everlearn.evaluation.stats import Interval, combine_intervals, difference_of_intervals, paired_difference
from everlearn.evaluation.tradeoff import Choice, Option, choose
from everlearn.report.compare import paired_comparisons
from everlearn.report.html import folded, picture_section, table_section
from everlearn.report.matrix import SeedMatrix
from everlearn.report.page import PAGE
from everlearn.report.plot_tradeoff import draw_tradeoff
from everlearn.report.plots import Picture
from everlearn.report.style import save
from everlearn.report.table import Grid, comparison_grid, cost_grid, matrix_grid
from everlearn.report.text import measures_note, number, size
from everlearn.report.views import RunView, joint_scores, kept_bytes, load_views, mean_cost, plasticity_of
from everlearn.state import make_folder

PLAIN, JOINT = "none", "joint"  # the names of the two trials that others are measured against
RULE = (
    "Of the methods on the Pareto front of retention, plasticity, memory and time, the one with the highest average "
    "score at the end; of those that the paired 95% interval can't tell from it, the one that keeps least memory, then "
    "the fastest."
)


@dataclass(frozen=True)
class Advice:
    """What the trials say. `options` are the methods, `joint` the reference beside them.

    scores: name -> average score at the end. differences: name -> that of plain training taken off, paired.
    shares: retention is a share (stability); otherwise a difference (backward transfer).
    n_items: evaluation items over all tasks. setting: a sentence on what was tried. not_tried: name -> why.
    """

    views: tuple[RunView, ...]
    joint: RunView | None
    options: tuple[Option, ...]
    choice: Choice
    scores: Mapping[str, Interval]
    differences: Mapping[str, Interval]
    shares: bool
    of_joint: bool
    n_items: int
    setting: str
    not_tried: Mapping[str, str]


def read_advice(folders: Mapping[str, Path], setting: str, not_tried: Mapping[str, str]) -> Advice:
    """Compare finished trials, one seed each on the same items: names to run folders, `PLAIN` among them.

    Raises:
        StateError: if a log is missing or damaged.
    """
    loaded = load_views(folders)
    views = tuple(view for view in loaded if view.name != JOINT)
    joint = next((view for view in loaded if view.name == JOINT), None)
    reference = joint_scores([joint]) if joint else {}
    plastic = [plasticity_of(view, reference) for view in views] if reference else []
    of_joint = bool(plastic) and None not in plastic
    if not of_joint:
        plastic = [_mean(view, "learning_accuracy") for view in views]
    shares = all(_mean(view, "stability") is not None for view in views)
    ends = {view.name: view.started[0] for view in views}
    plain_s = mean_cost(next(view for view in views if view.name == PLAIN))["train_s"]
    options = tuple(
        Option(
            name=view.name,
            score=_mean(view, "average_accuracy"),
            retention=_mean(view, "stability" if shares else "backward_transfer"),
            plasticity=plasticity,
            memory_bytes=sum(kept_bytes(view).values()),
            time=round(mean_cost(view)["train_s"] / max(plain_s, 1e-9), 1),  # tenths: a clock tells no less
        )
        for view, plasticity in zip(views, plastic, strict=True)
    )
    plain = ends[PLAIN]
    return Advice(
        views=views,
        joint=joint,
        options=options,
        choice=choose(options, lambda first, second: score_difference(ends[first], ends[second])),
        scores={view.name: _interval(view.results["summary"]["average_accuracy"]) for view in views},
        differences={name: score_difference(plain, end) for name, end in ends.items() if name != PLAIN},
        shares=shares,
        of_joint=of_joint,
        n_items=int(plain.n[plain.last_step, plain.learned].sum()),
        setting=setting,
        not_tried=dict(not_tried),
    )


def score_difference(before: SeedMatrix, after: SeedMatrix) -> Interval:
    """Return how the average score at the end differs, after − before, each task's items paired where scores are means.

    The interval is over the items; the tasks' intervals are joined by `combine_intervals`.
    """
    parts = []
    for column in before.learned:
        task = before.tasks[column]
        start, end = (_final(matrix, matrix.tasks.index(task)) for matrix in (before, after))
        first, second = before.outcomes.get((before.last_step, task)), after.outcomes.get((after.last_step, task))
        paired = first is not None and second is not None and len(first) == len(second)
        if paired and abs(first.mean() - start.value) < 1e-6 and abs(second.mean() - end.value) < 1e-6:
            found = paired_difference(first, second)
            parts.append(Interval(found.difference, found.low, found.high))
        else:
            parts.append(difference_of_intervals(start, end))
    return combine_intervals(parts)


def sentences(advice: Advice) -> list[str]:
    """Return the recommendation and how sure it is."""
    choice, n = advice.choice, advice.n_items
    score = {option.name: option.score for option in advice.options}
    lines = [f"Recommended: {_called(choice.chosen)}."]
    if choice.chosen == PLAIN:
        if choice.best == PLAIN:
            lines.append(f"Nothing else on the front scored higher ({_number(score[PLAIN])}, {n} items).")
        else:
            lines.append(
                f"{choice.best} scored highest on the front, {_change(advice.differences[choice.best])} against plain "
                f"training: not significant with {n} items, and plain training keeps nothing."
            )
        return [*lines, "More rows and items, by a larger --budget, may tell more."]
    gain = advice.differences[choice.chosen]
    significant = gain.low > 0 or gain.high < 0
    lines.append(
        f"Average score at the end {_number(score[choice.chosen])}, plain training {_number(score[PLAIN])}: "
        f"{_change(gain)} on the same {n} items"
        + ("." if significant else "; the difference to plain training is not significant.")
    )
    if choice.best != choice.chosen:
        lines.append(
            f"{choice.best} scored {_number(score[choice.best])}, which these items can't tell from it; "
            f"{choice.chosen} is the cheaper one in memory, then time."
        )
    return lines


def caveats(advice: Advice) -> list[str]:
    """Return what the numbers do not say."""
    lines = [
        "One seed: intervals are over the items, not over other seeds or orders. The recommended method was picked on "
        "these items, so its own score is a little too good.",
        "Trials are small; with more rows and epochs the numbers move, and memories grow up to their capacity.",
    ]
    for why in dict.fromkeys(advice.not_tried.values()):
        left_out = [name for name, reason in advice.not_tried.items() if reason == why]
        lines.append(f"Not tried: {', '.join(left_out)} ({why.rstrip('.')}).")
    return lines


def advice_grid(advice: Advice, intervals: bool = True) -> Grid:
    """Return methods × what was measured, best score first, joint training last.

    Args:
        intervals: write those of the scores too; those of the differences always are.
    """
    rows = []
    for option in sorted(advice.options, key=lambda option: -option.score):
        score, difference = advice.scores[option.name], advice.differences.get(option.name)
        rows.append(
            (
                f"{_mark(option, advice.choice)} {option.name}",
                _estimate(score) if intervals else _number(score.value),
                _estimate(difference, signed=True) if difference else "",
                _number(option.retention, not advice.shares),
                _number(option.plasticity),
                size(option.memory_bytes) if option.memory_bytes else "–",
                f"{option.time:.1f}×",
            )
        )
    if advice.joint is not None:
        score = _interval(advice.joint.results["summary"]["average_accuracy"])
        text = _estimate(score) if intervals else _number(score.value)
        rows.append((JOINT, text, "", "", _number(1.0) if advice.of_joint else "", "", ""))
    retention = "score at the end ÷ right after learning" if advice.shares else "the change since a task was learned"
    plasticity = "score right after learning" + (" as a share of joint training's" if advice.of_joint else "")
    measures = {measure for view in advice.views for measure in view.measures}
    note = (
        "★ recommended, ● on the Pareto front, ○ another is at least as good in retention, plasticity, kept and time. "
        + ("joint: all tasks at once, the reference. " if advice.joint else "")
        + f"Retention: {retention}. Plasticity: {plasticity}. Time: training, none = 1. 95% intervals over the items."
    )
    columns = ("method", "score", "against none", "retention", "plasticity", "kept", "time")
    return Grid("The trade-off", columns, tuple(rows), f"{note} {measures_note(measures)}".strip())


def recipe_header(advice: Advice, recipe: Path) -> list[str]:
    """Return the sentences above the recommended recipe: what was measured, and how it is run."""
    width = max(len(option.name) for option in advice.options)
    table = [
        f"  {option.name:<{width}}  {_estimate(advice.scores[option.name], line=' ')}, retention "
        f"{_number(option.retention, not advice.shares)}, plasticity {_number(option.plasticity)}, "
        f"keeps {size(option.memory_bytes)}, time {option.time:.1f}×"
        for option in sorted(advice.options, key=lambda option: -option.score)
    ]
    return [
        "Made by everlearn advise.",
        _command(recipe),
        *sentences(advice),
        f"Measured: {advice.setting}",
        "Average score at the end with 95% interval over the items:",
        *table,
        f"Rule: {RULE}",
        *caveats(advice),
    ]


def write_advice(advice: Advice, recipe: Path, out: Path) -> None:
    """Write `tradeoff.png` and `report.html`, one file with the picture and the recipe in it, into `out`."""
    make_folder(out)
    picture = Picture(
        out / "tradeoff.png",
        "Retention, plasticity, memory, time",
        "Left: up keeps more of the old, right learns the new better. Right: the score at the end and what it costs.",
    )
    joint = _mean(advice.joint, "average_accuracy") if advice.joint else None
    drawn = draw_tradeoff(
        advice.options, advice.choice, advice.scores, joint=joint, shares=advice.shares, of_joint=advice.of_joint
    )
    save(drawn, picture.path)
    (out / "report.html").write_text(_page(advice, recipe, picture), encoding="utf-8")


def _page(advice: Advice, recipe: Path, picture: Picture) -> str:
    shown = [*advice.views, *([advice.joint] if advice.joint else [])]
    first, *rest = sentences(advice)
    body = [
        f"<section><h2>{html.escape(first)}</h2>{_paragraphs(rest)}<pre>{html.escape(_command(recipe))}</pre></section>",
        table_section(advice_grid(advice)),
        picture_section(picture),
        f"<section><h2>How it was found</h2>{_paragraphs([advice.setting, RULE, *caveats(advice)])}</section>",
        folded("The recipe", f"<pre>{html.escape(recipe.read_text(encoding='utf-8'))}</pre>"),
        table_section(cost_grid(shown)),
    ]
    pairs = comparison_grid(paired_comparisons(advice.views), overall=False)
    if pairs.rows:
        body.append(folded(pairs.title, table_section(pairs)))
    body.append(folded("All scores as numbers", "".join(table_section(matrix_grid(view)) for view in shown)))
    title = "everlearn: which method for these tasks"
    return Template(PAGE).substitute(title=title, lead=html.escape(advice.setting), body="\n".join(body))


def _paragraphs(lines: Sequence[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _mark(option: Option, choice: Choice) -> str:
    if option.name == choice.chosen:
        return "★"
    return "●" if option.name in choice.front else "○"


def _command(recipe: Path) -> str:
    return f"everlearn run {recipe} --out runs/{recipe.absolute().parent.name}_full"


def _called(name: str) -> str:
    return "plain training (none)" if name == PLAIN else name


def _mean(view: RunView, metric: str) -> float | None:
    return view.results["summary"][metric]["mean"]


def _interval(entry: Mapping) -> Interval:
    return Interval(*(float("nan") if entry[name] is None else entry[name] for name in ("mean", "low", "high")))


def _final(matrix: SeedMatrix, column: int) -> Interval:
    cells = (matrix.values, matrix.low, matrix.high)
    return Interval(*(float(cell[matrix.last_step, column]) for cell in cells))


def _number(value: float | None, signed: bool = False) -> str:
    return number(value, signed, digits=2)  # small trials tell no more


def _estimate(interval: Interval, signed: bool = False, line: str = "\n") -> str:
    bounds = ", ".join(_number(bound) for bound in (interval.low, interval.high))
    return f"{_number(interval.value, signed)}{line}[{bounds}]"


def _change(interval: Interval) -> str:
    return _estimate(interval, signed=True, line=" ")
