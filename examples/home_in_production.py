"""A model that is taught for years: versions, a gate that refuses what would harm it, a way back, an export.

python examples/home_in_production.py [--model FOLDER_OR_HUB_ID] [--data FOLDER] [--home NEW_FOLDER]

FOLDER holds a file for each delivery of rows (JSONL, CSV or Parquet; columns prompt and completion), or a folder with
train and test files for each. Without them the pocket model is taught two domains; then comes a delivery that would
spoil the first of them, and is refused.
"""

import tempfile
from pathlib import Path

from made import parsed, parser_of, requests, tasks_in

from everlearn.home import Gate, Home


def spoilt(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return rows with the answers of others, as where a column slipped."""
    answers = [row["completion"] for row in rows]
    return [{**row, "completion": answer} for row, answer in zip(rows, answers[1:] + answers[:1], strict=True)]


def main() -> None:
    """Make a home, teach it each delivery, and say what came of it."""
    parser = parser_of(__doc__, rows=200, epochs=4, model="pocket")
    parser.add_argument("--home", type=Path, help="a new folder; by default a temporary one")
    arguments = parsed(parser)

    if arguments.data:
        deliveries = [(name, *files) for name, files in tasks_in(arguments.data).items()]
    else:
        n_eval = arguments.rows // 2
        shop, kitchen = requests("shop", arguments.rows + n_eval), requests("kitchen", arguments.rows)
        deliveries = [
            ("shop", shop[n_eval : 2 * n_eval], shop[:n_eval]),
            ("kitchen", kitchen[n_eval:], kitchen[:n_eval]),
        ]
        deliveries.append(("shop again", spoilt(shop[2 * n_eval :]), None))

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.home or Path(temporary) / "home"
        learner = {"epochs": arguments.epochs}
        home = Home.create(folder, arguments.model, learner=learner, strategies=["replay", "ewc"])
        for name, train, evaluate in deliveries:
            report = home.learn(name, train, evaluate, gate=Gate(tolerance=0.02))
            print(
                f"version {report.version}, {name}: {report.verdict}, {report.score.value:.2f} right; {report.status}"
            )
            for verdict in report.gate.verdicts:
                change, told = verdict.change, "refused" if verdict.refused else "fine"
                print(f"    {change.task}: {change.before:.2f} before, {change.after:.2f} now: {told}")

        print(f"current: version {home.current}")
        home.rollback(1)
        print(f"rolled back: version {home.current}, nothing is deleted: {[one.number for one in home.versions()]}")
        exported = home.export(Path(temporary) / "adapter")
        print(exported)


if __name__ == "__main__":
    main()
