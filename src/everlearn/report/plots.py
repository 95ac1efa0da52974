"""The pictures of a report, written as PNG files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from everlearn.report import plot_experts, plot_router
from everlearn.report.plot_abilities import draw_abilities
from everlearn.report.plot_capacity import draw_capacity, draw_task_scores
from everlearn.report.plot_cost import draw_cost
from everlearn.report.plot_curves import draw_mean_curve, draw_task_curves
from everlearn.report.plot_experts import draw_experts
from everlearn.report.plot_gamma import draw_gamma
from everlearn.report.plot_matrix import draw_matrices
from everlearn.report.plot_router import draw_decisions, draw_reliability
from everlearn.report.plot_scatter import draw_retention
from everlearn.report.style import save
from everlearn.report.views import RunView


@dataclass(frozen=True)
class Picture:
    """A picture of the report: its file and what it shows."""

    path: Path
    title: str
    caption: str


# file name, title, caption, what draws it (None where the runs give nothing to draw)
_PICTURES: tuple[tuple[str, str, str, Callable[[Sequence[RunView]], Figure | None]], ...] = (
    (
        "matrices",
        "Scores after each step",
        "Rows: what was learned last. Columns: what is scored. One colour scale; grey was not scored.",
        draw_matrices,
    ),
    (
        "mean_curve",
        "Mean over the tasks learned so far",
        "Bands are 95% intervals over seeds and items. A dashed level is joint training at the end.",
        draw_mean_curve,
    ),
    (
        "task_curves",
        "Each task, from when it was learned",
        "A falling line is forgetting. A dashed level is joint training at the end.",
        draw_task_curves,
    ),
    (
        "abilities",
        "Kept of before",
        "What the base model could do before it learned. Bands, of up to three runs, are 95% intervals.",
        draw_abilities,
    ),
    (
        "retention",
        "Retention against plasticity",
        "Up: more of the old is kept. Right: the new is learned better. A larger dot keeps more bytes.",
        draw_retention,
    ),
    (
        "capacity",
        "What each task uses of the model",
        "Share of the weights (PackNet) or units (HAT) that each task was the first to take; grey is left for others.",
        draw_capacity,
    ),
    (
        "gamma",
        "How firmly each task is to be held",
        "Gamma of gamma_ewc and the signals that it follows, over the steps of each task; a line for each seed. A "
        "task's Fisher is added as often as its mean gamma says; at 1, dashed, it is EWC.",
        draw_gamma,
    ),
    (
        "decisions",
        plot_router.TITLE,
        f"{plot_router.CAPTION} The first seed.",
        draw_decisions,
    ),
    (
        "reliability",
        "How far the chances can be trusted",
        "Of the tasks of which the outcome is known, the share on which reuse was as good as a new expert, with 95% "
        "intervals. Beneath, what the numbers would be at so many outcomes if the chances were exact. All seeds.",
        draw_reliability,
    ),
    (
        "experts",
        plot_experts.TITLE,
        f"{plot_experts.CAPTION} The first seed.",
        draw_experts,
    ),
    (
        "task_scores",
        "Each task when learned and at the end",
        "Filled: at the end, with its 95% interval. Open: right after it was learned.",
        draw_task_scores,
    ),
    ("cost", "Cost", "What one seed took from start to end; mean over the seeds.", draw_cost),
)


def write_plots(views: Sequence[RunView], out: Path) -> list[Picture]:
    """Draw the runs and write one PNG for each picture into `out`, which must exist.

    Returns:
        The pictures in the order in which a report shows them; retention against plasticity only where it is defined.
    """
    pictures = []
    for name, title, caption, draw in _PICTURES:
        figure = draw(views)
        if figure is not None:
            picture = Picture(Path(out) / f"{name}.png", title, caption)
            save(figure, picture.path)
            pictures.append(picture)
    return pictures
