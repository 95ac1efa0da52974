"""What a home has to say, as tables and sentences for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from everlearn.evaluation.abilities import DIVERGENCE
from everlearn.evaluation.answers import Flip, readable, told
from everlearn.evaluation.gain import ALREADY_KNOWN, NOTHING, WITHOUT_FLOOR, WORSE
from everlearn.home.abilities import ABILITY
from everlearn.home.comparing import CheckReport, Diff
from everlearn.home.gate import LOG_LIKELIHOOD, Change, GateReport, Verdict
from everlearn.home.learning import LearnReport

IN_NATS = (LOG_LIKELIHOOD, DIVERGENCE)


def changes_table(title: str, changes: Sequence[Change], columns: Mapping[str, Sequence[str]] | None = None) -> Table:
    """Return a table of changes, a row a task: scores before and after; `columns` adds others: head -> its cells."""
    extra = columns or {}
    table = Table(title=title, title_justify="left")
    for name in ("task", "scores", "change [95%]", "p", "lost, gained", *extra):
        table.add_column(name, overflow="fold")
    for i, change in enumerate(changes):
        cells = [
            f"{change.task}\n(nats/token)" if change.metric in IN_NATS else change.task,
            f"{change.before:z.3f}\n{change.after:z.3f}",
            f"{change.difference:+.3f}\n{_interval(change)}",
        ]
        cells += ["–" if change.p_value is None else f"{change.p_value:.2g}"]
        cells += [f"{change.n_lost}, {change.n_gained}\nof {change.n}", *(cells_of[i] for cells_of in extra.values())]
        table.add_row(*cells)
    return table


def change_notes(changes: Sequence[Change]) -> list[str]:
    """Return a sentence for each change whose difference is not that of its scores."""
    found = {change.metric: change.compared for change in changes if change.compared}
    return [f"The difference of {metric} is taken over items: {compared}." for metric, compared in found.items()]


def gate_table(report: GateReport) -> Table:
    """Return the gate's judgement, a row a comparison: earlier tasks, then what the base could do."""
    verdicts, may_refuse = [*report.verdicts, *report.abilities], report.rule == "safe"
    columns = {
        "against": [_against(verdict) for verdict in verdicts],
        "verdict": [
            *(_word(verdict) for verdict in report.verdicts),
            *(_word(verdict, may_refuse=may_refuse) for verdict in report.abilities),
        ],
    }
    tolerances = f"gate {report.tolerance:g}"
    tolerances += f", of abilities {report.abilities_tolerance:g}" if report.abilities else ""
    title = f"earlier tasks, versions before against the new one ({tolerances}, rule {report.rule})"
    return changes_table(title, [verdict.change for verdict in verdicts], columns)


def gate_sentences(report: GateReport) -> list[str]:
    """Return what must be said beside the table: what was lost, what can't be guarded, where items are too few."""
    sentences = []
    for verdict in report.verdicts:
        change = verdict.change
        if verdict.stands_in:
            what = "its own metric is too low to tell what is lost, so log-likelihoods are compared"
            sentences.append(f"{change.task}: {what} (the gate is {report.tolerance:g} nats per token).")
        if verdict.unguarded:
            scores = f"{change.metric} was {change.before:.3f} and is {change.after:.3f}"
            what = f"{scores}, so no loss above {report.tolerance:g} can show"
            sentences.append(f"{change.task} is UNGUARDED: {what}. Learn it better, or give it another metric.")
        elif verdict.refused:
            sentences.append(_loss_sentence(verdict, report.tolerance, report.rule))
        if verdict.undecided:
            sentences.append(_undecided_sentence(verdict, report.tolerance))
    for verdict in report.abilities:
        if verdict.refused:
            sentences.append(_loss_sentence(verdict, report.abilities_tolerance, report.rule))
        if verdict.undecided:
            sentences.append(_undecided_sentence(verdict, report.abilities_tolerance))
    if report.warned:
        what = "What the base model could do is lost beyond that; the version isn't refused for it"
        sentences.append(f"{what} (--gate-rule safe would). strategies: [self_replay] holds it; docs/abilities.md.")
    changes = [verdict.change for verdict in (*report.verdicts, *report.abilities)]
    return [*dict.fromkeys(sentences), *change_notes(changes)]


def outcome_sentence(report: LearnReport, home: str) -> str:
    """Return what became of a learning."""
    lost = ", ".join(f"{task} {_all_against(verdicts)}" for task, verdicts in report.gate.lost.items())
    if not lost and report.status != "promoted":
        scores = f"{report.gained.before:.2f} before, {report.gained.after:.2f} after"
        what = "nothing was learned" if report.verdict == NOTHING else f"{report.task} is answered worse ({scores})"
        if report.status == "forced":
            return f"Version {report.version} is current by force, though {what}."
        return (
            f"Refused: {what}; the current version stays. {_what_to_change(report)}; or take it all the same: --force."
        )
    if report.status == "refused":
        better = [verdict.version for verdicts in report.gate.lost.values() for verdict in verdicts]
        command = f"log {home}" if better[0] is None else f"diff {home} {better[0]} {report.version}"
        more = f"See it: everlearn {command}; take it all the same: learn with --force"
        return f"Refused: version {report.version} did not pass the gate on {lost}; the current version stays. {more}."
    if report.status == "forced":
        return f"Version {report.version} is current by force, though it did not pass the gate on {lost}."
    if report.verdict == ALREADY_KNOWN:
        known = f"{report.task} was known already ({report.gained.before:.2f} before, {report.gained.after:.2f} now)"
        return f"{known}; from now on the gate guards it. Version {report.version} is current."
    if report.gained.after == 0 and report.gained.metric not in WITHOUT_FLOOR:
        current = f"Version {report.version} is current, though no answer is right yet; the right ones are likelier"
        return f"{current}. {_what_to_change(report)}."
    return f"Version {report.version} is current."


def _what_to_change(report: LearnReport) -> str:
    """Return what can be done where nothing was learned."""
    cost = report.cost
    if not cost.get("learning_rate"):  # learned before it was kept
        return "Learn it for longer, or at another rate"
    used = f"It took {cost['n_epochs']} epochs, {cost['n_steps']} steps, at learning rate {cost['learning_rate']:g}"
    ways = "another --learning-rate, more --epochs or time (--set learner.max_minutes=60), more rows"
    return f"{used}. Try {ways}; see that an answer follows from its question"


def log_table(events: Sequence[Mapping[str, Any]], current: int | None) -> Table:
    """Return what happened, a row an event."""
    table = Table("time (UTC)", "event", "version", "task", "status", "parent", "note")
    for event in events:
        version = f"{event['version']}{' (current)' if event['version'] == current else ''}"
        cells = [str(event.get(key, "")) for key in ("task", "status", "parent")]
        time = str(event["time"]).replace("T", " ")[:19]
        table.add_row(time, event["event"], version, *cells, _event_note(event))
    return table


def diff_table(diff: Diff) -> Table:
    """Return how two versions differ, a row a task."""
    notes = [_unlearned(diff, change.task) for change in diff.changes]
    columns = {"note": notes} if any(notes) else None
    return changes_table(f"version {diff.before} against version {diff.after}", diff.changes, columns)


def flips_table(flips: Sequence[Flip]) -> Table:
    """Return items on which two versions differ: what each asks, the right answer, and what both versions answered."""
    table = Table(title="items that differ", title_justify="left")
    for name in ("task", "question", "right answer", "before", "after"):
        table.add_column(name, overflow="fold")
    for flip in flips:
        texts = (readable(text, limit) for text, limit in ((flip.question, 100), (flip.right, 60)))
        answers = (told(flip.answer_before, flip.before, 60), told(flip.answer_after, flip.after, 60))
        table.add_row(*map(Text, (flip.task, *texts, *answers)))
    return table


def drift_table(report: CheckReport) -> Table:
    """Return how each task drifted since it was learned."""
    versions = [str(drift.learned_in) for drift in report.drifts]
    title = f"version {report.version} now, against when each task was learned"
    return changes_table(title, [drift.change for drift in report.drifts], {"learned in version": versions})


def _unlearned(diff: Diff, task: str) -> str:
    numbers = diff.unlearned.get(task, [])
    return f"version {numbers[0]} has not learned it" if numbers else ""


def _interval(change: Change) -> str:
    return "–" if change.low is None else f"{change.low:+.3f} to {change.high:+.3f}"


def _against(verdict: Verdict) -> str:
    """Return what a version was compared with, in words."""
    if verdict.change.task.startswith(ABILITY):
        return f"version {verdict.version} ({'its loss was accepted' if verdict.version else 'the base'})"
    if verdict.version is None:
        return "current version"
    return f"version {verdict.version} ({'the best before' if verdict.n_chosen_from else 'current'})"


def _all_against(verdicts: Sequence[Verdict]) -> str:
    return "against " + " and ".join(dict.fromkeys(_against(verdict) for verdict in verdicts))


def _loss_sentence(verdict: Verdict, tolerance: float, rule: str) -> str:
    change = verdict.change
    unit = " nats/token" if change.metric in IN_NATS else ""
    lost = f"{change.task}: {-change.difference:.3f}{unit} lost against {_against(verdict)}"
    if verdict.p_value is None or rule == "safe":
        return f"{lost}; that no more than {tolerance:g} is lost in truth isn't sure."
    truth = "nothing were lost" if rule == "point" else f"{tolerance:g} were lost"
    chance = "below 0.001" if verdict.p_value < 0.001 else f"{verdict.p_value:.3f}"
    sure = f"if {truth} in truth, the chance of this in any of the comparisons would be {chance}"
    return f"{lost}, more than the {tolerance:g} accepted; {sure}."


def _undecided_sentence(verdict: Verdict, tolerance: float) -> str:
    change = verdict.change
    enough = "no number of items could" if verdict.n_needed is None else f"about {verdict.n_needed} would do"
    what = f"{change.n} items are too few to tell whether the loss is above {tolerance:g}"
    return f"{change.task}: {what} ({enough}, if nothing is lost in truth)."


def _event_note(event: Mapping[str, Any]) -> str:
    """Return what else there is to say of an event."""
    if event["event"] == "retire":
        counts = ", ".join(f"{event[key]} {key}" for key in ("retired", "corrected") if key in event)
        return f"{counts}; {event['items']} items left"
    warned = f"lost much of {', '.join(event['warned'])}" if event.get("warned") else ""
    return "; ".join(filter(None, (_verdict_note(event), warned)))


def _verdict_note(event: Mapping[str, Any]) -> str:
    """Return what the gate refused a version for, or else what came of learning it."""
    parent, against = event.get("parent"), event.get("against", {})
    if not event.get("lost"):
        verdicts = {NOTHING: "nothing was learned", WORSE: "answered worse than before", ALREADY_KNOWN: "known already"}
        return verdicts.get(event.get("verdict", ""), "")

    def beside(task: str) -> str:
        words = [f"version {n} ({'current then' if n == parent else 'the best before'})" for n in against.get(task, ())]
        return f" against {' and '.join(dict.fromkeys(words))}" if words else ""

    return f"not passed on {', '.join(f'{task}{beside(task)}' for task in event['lost'])}"


def _word(verdict: Verdict, *, may_refuse: bool = True) -> str:
    if verdict.refused and not may_refuse:
        return "WARNING: lost too much"
    if verdict.unguarded and not verdict.refused:
        return "UNGUARDED"
    if verdict.undecided:
        return "refused: too few items to be sure" if verdict.refused else "passed, too few items to be sure"
    return "refused: lost too much" if verdict.refused else "passed"


def report_lines(report: LearnReport, home: str, told: Sequence[str]) -> list[Table | str]:
    """Return what a terminal shows of a learning: tables, then sentences but those that were `told` meanwhile."""
    own = [report.gained]
    if report.likelihood is not None and report.likelihood.metric != report.gained.metric:
        own.append(report.likelihood)
    tables = [changes_table("the task that was learned, before and after", own)]
    if report.gate.verdicts or report.gate.abilities:
        tables.append(gate_table(report.gate))
    notes = [note for note in report.notes if note not in told]
    sentences = [*gate_sentences(report.gate), *change_notes([report.gained]), *notes]
    return [*tables, *dict.fromkeys(sentences), outcome_sentence(report, home)]
