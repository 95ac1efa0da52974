"""Learning in a home: laid down in pending/, carried out, judged by the gate, published as a version. Each step can be
killed and gone on with."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from everlearn.errors import Paused, StateError, describe
from everlearn.home.files import write_sealed
from everlearn.home.gate import Change, GateReport, compare_scores, judge, report_from, report_values
from everlearn.home.pending import Plan, keep_before, read_before, read_plan, read_task
from everlearn.home.store import VERSION_FILE, Store, Version, event_of, files_in, now, remove
from everlearn.home.tasks import add_items, load_tasks, trained_key
from everlearn.home.versions import Versions, finite_score
from everlearn.record import environment
from everlearn.runs import Run, pause_on_interrupt
from everlearn.state import checkpoints, pack, save_state, write_json
from everlearn.types import Score, Task


@dataclass(frozen=True)
class LearnReport:
    """What came of a learning. gained: how the learned task itself changed. gate: how the earlier tasks did."""

    version: int
    task: str
    status: str
    score: Score
    gained: Change
    gate: GateReport
    cost: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def promoted(self) -> bool:
        """Whether the new version is now the current one."""
        return self.status in ("promoted", "forced")


def carry_out(versions: Versions) -> LearnReport:
    """Do what pending/ says, from the start or from its newest checkpoint. The home's lock must be held.

    Raises:
        Paused: after SIGINT, the state saved. TrainingError: if the loss or a score is not finite.
    """
    store, plan = versions.store, read_plan(versions.store)
    versions = replace(versions, settings=plan.settings(versions.settings))
    present = load_tasks(store.tasks).get(plan.card.name, (plan.card, []))[1]
    task = read_task(store, plan, present)[0]
    versions.tasks = {**versions.tasks, task.name: task}
    before = read_before(store)
    if before is None:
        names = list(dict.fromkeys([*store.version(plan.parent).learned, task.name]))
        before = versions.scores(plan.parent, names)
        keep_before(store, before)
    run = versions.open(
        plan.parent,
        {**versions.learned_tasks(plan.parent), task.name: task},
        strategies=versions.settings.build_strategies(),
        seed=plan.seed,
        folder=store.pending,
        checkpointing=plan.checkpoint,
    )
    run.inspect(task)
    plan = replace(plan, notes=list(dict.fromkeys([*plan.notes, *run.notes])))
    with pause_on_interrupt(run):
        _learn(run, task, plan.number)
        after = {name: _score_unless_paused(run, run.tasks[name]) for name in before}
    earlier = store.version(plan.parent).learned
    gate = judge(plan.gate, {name: score for name, score in before.items() if name in earlier}, after)
    gained = compare_scores(before[task.name], after[task.name])
    _stage(versions, plan, run, after, gate, gained)
    store.publish(store.pending / "version", plan.number)
    settle_published(store)
    return report_of(store, plan.number)


def settle_published(store: Store) -> bool:
    """Finish a learning whose version is published: keep its evaluation items, make it current if it was accepted, log
    it, clear pending/. The lock must be held.

    Returns:
        Whether there was one. Doing it twice, as after a crash in between, does no harm.
    """
    if not store.pending.exists() or read_plan(store).number not in store.numbers():
        return False
    plan = read_plan(store)
    record = store.version(plan.number)
    add_items(store.tasks / plan.card.name, plan.card, read_task(store, plan, [])[1], plan.number)
    lost = [verdict["change"]["task"] for verdict in record.gate["verdicts"] if verdict["refused"]]
    details = {"task": record.task, "status": record.status, "parent": record.parent, "lost": lost}
    event = {**event_of("learn", record.number, details), "time": record.time}
    if event not in store.events():
        if record.status == "refused":
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
    return LearnReport(number, record.task, record.status, score, gained, gate, record.cost, tuple(record.notes))


def _learn(run: Run, task: Task, number: int) -> None:
    """Learn the task, from the newest checkpoint if there is one; the result is the same bit for bit."""
    training, learned = None, False
    run.position = number
    if checkpoints(run.folder / "checkpoints"):
        training = run.restore(run.folder)
        learned = training is None
    if not learned:
        cost = run.learn(task, training["learner"] if training else None)
        run.context["cost"] = asdict(cost)
        run.checkpoint()


def _score_unless_paused(run: Run, task: Task) -> Score:
    if run.pause_requested:
        raise Paused(str(run.folder))
    return finite_score(run, task)


def _stage(
    versions: Versions, plan: Plan, run: Run, after: Mapping[str, Score], gate: GateReport, gained: Change
) -> None:
    """Write the whole version aside, below pending/."""
    store, staged = versions.store, versions.store.pending / "version"
    if staged.exists():
        remove(staged)
    tensors: dict[str, torch.Tensor] = {}
    values = pack(run.state(), tensors, "run")
    save_state(staged / "state", tensors, values)
    where = versions.measured_on()
    for score in after.values():
        store.keep_score(staged / "scores", score, where)
    rows = run.tasks[plan.card.name].train
    write_json(staged / "trained.json", sorted({trained_key(row) for row in rows}))
    status = "promoted" if not gate.refused else "forced" if plan.force else "refused"
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
        gate=report_values(gate),
        gained=dict(vars(gained)),
        cost=run.context["cost"],
        data=plan.data,
        env=environment(run.accelerator.device),
        notes=plan.notes,
        files={**files_in(staged), **store.memory_files(values)},
    )
    write_sealed(staged / VERSION_FILE, asdict(record))


def refuse_pending(store: Store) -> None:
    """Raise StateError: a learning is in progress or was killed, and must be ended one way or the other first."""
    plan = read_plan(store)
    way_out = (
        f"Go on with it: everlearn resume {store.path}; or drop it: everlearn learn {store.path} --discard-pending ..."
    )
    what = f"learning {plan.card.name!r} was begun and not finished"
    raise StateError(describe(str(store.path), what, f"version {plan.number}", way_out))
