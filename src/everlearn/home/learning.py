"""Learning in a home: laid down in pending/, carried out, judged by the gate, published as a version. Each step can be
killed and gone on with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from everlearn.errors import Paused
from everlearn.evaluation.gain import NOTHING, WORSE, answer_likelihood, by_log_likelihood, verdict_on
from everlearn.files import write_sealed
from everlearn.home.abilities import (
    abilities_before,
    ability_comparisons,
    keep_abilities,
    make_probes,
    read_probes,
    scores_of,
)
from everlearn.home.gate import (
    Change,
    Gate,
    GateReport,
    can_guard,
    compare_scores,
    judge_abilities,
    judge_all,
    report_from,
    report_values,
)
from everlearn.home.pending import (
    Plan,
    clear_failure,
    keep_before,
    keep_likelihood,
    keep_references,
    read_before,
    read_likelihood,
    read_plan,
    read_references,
    read_task,
)
from everlearn.home.reading import trained_key
from everlearn.home.references import References, comparisons_of, find_references, has_stand_in
from everlearn.home.store import VERSION_FILE, Store, Version, event_of, files_in, now, remove
from everlearn.home.tasks import add_items, item_of, keep_own, task_before
from everlearn.home.versions import Versions, finite_score
from everlearn.record import environment
from everlearn.saving import Saving, pause_on_interrupt
from everlearn.state import checkpoints, save_value, write_json
from everlearn.types import Score, Task
from everlearn.way import Run

USUAL = Gate().tolerance  # of the learnings to come, which may be gated otherwise than this one


@dataclass(frozen=True)
class LearnReport:
    """What came of a learning.

    gate: how the earlier tasks changed. gained, likelihood: how the learned task itself did, by its metric and by the
    log-likelihood of its right answers. verdict: learned, known, nothing or worse (see
    `everlearn.evaluation.gain.verdict_on`); empty for versions made before it was asked.
    """

    version: int
    task: str
    status: str
    score: Score
    gained: Change
    gate: GateReport
    cost: dict[str, Any]
    notes: tuple[str, ...] = ()
    likelihood: Change | None = None
    verdict: str = ""

    @property
    def promoted(self) -> bool:
        """Whether the new version is now the current one."""
        return self.status in ("promoted", "forced")


@dataclass(frozen=True)
class _Measured:
    """What was measured of a new version, and what came of it."""

    after: Mapping[str, Score]
    stand_ins: Mapping[str, Score]
    abilities: Mapping[str, Score]
    gate: GateReport
    gained: Change
    likelihood: Change
    verdict: str
    notes: tuple[str, ...]

    @property
    def refused(self) -> bool:
        """Whether an earlier task lost too much, or the task itself gained nothing."""
        return self.gate.refused or self.verdict in (NOTHING, WORSE)


def carry_out(versions: Versions) -> LearnReport:
    """Do what pending/ says, from the start or from its newest checkpoint. The home's lock must be held.

    Raises:
        Paused: after SIGINT, the state saved. TrainingError: if the loss or a score is not finite.
    """
    store, plan = versions.store, read_plan(versions.store)
    clear_failure(store)
    versions = replace(versions, settings=plan.settings(versions.settings))
    present = task_before(store.tasks / plan.card.name, plan.card, plan.number)[1]
    task = read_task(store, plan, present)[0]
    versions.tasks = {**versions.tasks, task.name: task}
    before, references = _measure_before(versions, plan)  # first: a task that doesn't fit is refused here
    make_probes(versions, task)
    abilities_then = abilities_before(versions, plan.gate, plan.parent)
    probes = read_probes(versions)
    run = versions.open(
        plan.parent,
        {**versions.learned_tasks(plan.parent), task.name: task},
        strategies=versions.settings.build_strategies(),
        seed=plan.seed,
        saving=Saving(store.pending, plan.checkpoint),
    )
    run.inspect(task)
    with pause_on_interrupt(run.saving):
        likelihood = _likelihood_before(store, run, task)
        _learn(run, task, plan.number)
        after = {name: _score_unless_paused(run, run.tasks[name]) for name in before}
        stand_ins = {
            name: _score_unless_paused(run, by_log_likelihood(run.tasks[name]))
            for name, score in after.items()
            if has_stand_in(run.tasks[name]) and not all(can_guard(score, t) for t in (plan.gate.tolerance, USUAL))
        }
        likelihood_after = answer_likelihood(run, task)
        abilities = {} if probes is None else scores_of(probes, run)
    known = task.name in store.version(plan.parent).learned
    comparisons = comparisons_of(plan.gate, references, after, stand_ins)
    gate = judge_all(plan.gate, comparisons, sum(one.n_tests for one in references.values()))
    measured = _Measured(
        after=after,
        stand_ins=stand_ins,
        abilities=abilities,
        gate=replace(gate, abilities=judge_abilities(plan.gate, ability_comparisons(abilities_then, abilities))),
        gained=compare_scores(before[task.name], after[task.name]),
        likelihood=compare_scores(likelihood, likelihood_after),
        verdict=verdict_on(before[task.name], after[task.name], likelihood, likelihood_after, known=known),
        notes=tuple(note for one in references.values() for note in one.notes),
    )
    _stage(versions, plan, run, measured)
    store.publish(store.pending / "version", plan.number)
    settle_published(store)
    return report_of(store, plan.number)


def settle_published(store: Store) -> bool:
    """Finish a learning whose version is published: if it was accepted, keep its evaluation items and make it current;
    log it, clear pending/. The lock must be held.

    Returns:
        Whether there was one. Doing it twice, as after a crash in between, does no harm.
    """
    if not store.pending.exists() or read_plan(store).number not in store.numbers():
        return False
    plan = read_plan(store)
    record = store.version(plan.number)
    if record.status != "refused":
        known = task_before(store.tasks / plan.card.name, plan.card, plan.number)[0]
        add_items(store.tasks / plan.card.name, known, read_task(store, plan, [])[1], plan.number)
    gate = report_from(record.gate)
    lost = gate.lost
    details = {"task": record.task, "status": record.status, "parent": record.parent, "lost": list(lost)}
    details |= {"verdict": record.verdict} if record.verdict else {}
    details |= {"warned": gate.warned} if gate.warned else {}
    if lost:
        details["against"] = {name: [verdict.version for verdict in verdicts] for name, verdicts in lost.items()}
    event = {**event_of("learn", record.number, details), "time": record.time}
    if event not in store.events():
        if record.status == "refused":
            store.take_library(record.parent)
            store.log(event)
        else:
            store.set_current(record.number, event)
    store.drop_pending()
    return True


def report_of(store: Store, number: int) -> LearnReport:
    """Return the report on a version that was learned."""
    record = store.version(number)
    score = store.learned_score(number, record.task)
    gate, gained = report_from(record.gate), Change(**record.gained)
    likelihood = None if record.likelihood is None else Change(**record.likelihood)
    return LearnReport(
        number, record.task, record.status, score, gained, gate, record.cost, tuple(record.notes), likelihood,
        record.verdict,
    )  # fmt: skip


def _measure_before(versions: Versions, plan: Plan) -> tuple[dict[str, Score], dict[str, References]]:
    """Return the current version's scores, and all that the new one will be compared with; from pending/ if it was
    found before."""  # fmt: skip
    store = versions.store
    before = read_before(store)
    if before is None:
        names = list(dict.fromkeys([*store.version(plan.parent).learned, plan.card.name]))
        before = versions.scores(plan.parent, names)
        keep_before(store, before)
    references = read_references(store)
    if references is None:
        references = find_references(versions, plan.gate, plan.parent, before)
        keep_references(store, references)
    return before, references


def _likelihood_before(store: Store, run: Run, task: Task) -> Score:
    """Return the log-likelihood of the task's right answers before the learning; from pending/ if it was found."""
    found = read_likelihood(store)
    if found is None:
        found = answer_likelihood(run, task)
        keep_likelihood(store, found)
    return found


def _learn(run: Run, task: Task, number: int) -> None:
    """Learn the task, from the newest checkpoint if there is one; the result is the same bit for bit."""
    training, learned = None, False
    run.position = number
    if checkpoints(run.saving.folder / "checkpoints"):
        training = run.restore()
        learned = training is None
        run.notes[:] = run.saving.context.get("notes", ())
    run.saving.context["notes"] = run.notes  # saved with each checkpoint
    if not learned:
        cost = run.learn(task, training["learner"] if training else None)
        run.saving.context["cost"] = asdict(cost)
        run.checkpoint()


def _score_unless_paused(run: Run, task: Task) -> Score:
    if run.saving.pause_requested:
        raise Paused(str(run.saving.folder))
    return finite_score(run, task)


def _stage(versions: Versions, plan: Plan, run: Run, measured: _Measured) -> None:
    """Write the whole version aside, below pending/."""
    store, staged = versions.store, versions.store.pending / "version"
    if staged.exists():
        remove(staged)
    values = save_value(staged / "state", run.state(), "run")
    _keep_scores(versions, staged / "scores", run, measured)
    keep_abilities(versions, staged / "scores", measured.abilities)
    keep_own(staged, plan.card, read_task(store, plan, [])[1])
    rows = run.tasks[plan.card.name].train
    write_json(staged / "trained.json", sorted({trained_key(row) for row in rows}))
    status = "promoted" if not measured.refused else "forced" if plan.force else "refused"
    notes = [*plan.notes, *run.notes, *measured.notes, *_told_of_guard(plan.card.name, measured)]
    record = Version(
        number=plan.number,
        parent=plan.parent,
        status=status,
        time=now(),
        task=plan.card.name,
        learned=tuple(dict.fromkeys([*store.version(plan.parent).learned, plan.card.name])),
        seed=plan.seed,
        learner=plan.learner,
        strategies=plan.strategies,
        gate=report_values(measured.gate),
        gained=dict(vars(measured.gained)),
        likelihood=dict(vars(measured.likelihood)),
        verdict=measured.verdict,
        cost=run.saving.context["cost"],
        data=plan.data,
        env=environment(run.accelerator.device),
        notes=list(dict.fromkeys(notes)),
        files={**files_in(staged), **store.memory_files(values), **store.library_files()},
    )
    write_sealed(staged / VERSION_FILE, asdict(record))


def _keep_scores(versions: Versions, folder: Path, run: Run, measured: _Measured) -> None:
    items = {name: [item_of(row) for row in run.tasks[name].evaluation] for name in measured.after}
    where = versions.measured_on()
    for scores, stand_in in ((measured.after, False), (measured.stand_ins, True)):
        for name, score in scores.items():
            versions.store.keep_score(folder, score, items[name], where, stand_in=stand_in)


def _told_of_guard(task: str, measured: _Measured) -> list[str]:
    """Return what must be said of a task whose score is so low that its loss won't show in it."""
    score = measured.after[task]
    if can_guard(score, USUAL):
        return []
    what = f"{task}: {score.metric} is {score.value:.3f} after learning, so what is lost later won't show in it"
    if task in measured.stand_ins:
        return [f"{what}. The gate will compare log-likelihoods in its place."]
    return [f"{what}. The gate can't guard the task until it is learned better, or measured by another metric."]
