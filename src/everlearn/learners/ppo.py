"""Reinforcement: a model answers problems, is told what its answers are worth, and makes the better ones likelier.

for iteration in range(n):
    asked = problems.asked(iteration)                  # those of the task, and old ones that strategies mix in
    answered = sampler.draw(asked)                     # rl/sampler.py
    rewards(answered)                                  # rl/reward.py
    advantages(answered)                               # rl/advantages.py
    for micro_batches in updates:
        take_step(micro_batches)                       # learners/sft.py, with every strategy's hooks; rl/update.py
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch

from everlearn.errors import ConfigError, TrainingError, check_choice, check_number, describe
from everlearn.evaluation.score import is_right
from everlearn.learners.budget import AUTO
from everlearn.learners.rates import ENOUGH_ROWS, learning_rate_for
from everlearn.learners.sft import OWN, Hooks, Progress, take_step
from everlearn.learners.teacher import as_base, as_teacher
from everlearn.models.load import Model
from everlearn.models.objectives import Batch, to_device
from everlearn.registry import find, register
from everlearn.rl.advantages import (
    ADVANTAGES,
    GAE,
    GROUP,
    generalised_advantages,
    group_advantages,
    leave_one_out_advantages,
    moments,
    whiten,
)
from everlearn.rl.critic import CRITICS, Critic
from everlearn.rl.problems import Problems, with_answer
from everlearn.rl.reward import Rewards
from everlearn.rl.rollouts import Answered, can_be_packed, cut, lay_out, n_cut_off
from everlearn.rl.sampler import Sampler
from everlearn.rl.server import ServerSampler
from everlearn.rl.update import Micro, PolicyLoss, Tally, log_p_of
from everlearn.rl.weights import distance, reference_weights, snapshot
from everlearn.seeds import generator_for
from everlearn.shards import lay_out_state, whole
from everlearn.types import Mixture, Outputs, Row, Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

VERIFIER = "verifier"  # the reward that needs no function
CHOICES = {
    "advantage": ADVANTAGES,
    "critic": CRITICS,
    "reference": ("start", "last", "base"),
    "replayed": ("rollout", "answer"),
    "sampling_dtype": ("auto", "float32", "bfloat16"),
    "precision": ("no", "bf16"),
}
_Best = tuple[float, int, Row]  # of a problem: its best answer's reward, the iteration, the row with that answer
Told = Callable[[Any, Task, dict[str, Any], bool], None]  # run, task, what is told, whether it is the last


@register("learner", "ppo")
@dataclass
class PPO:
    """Learn from what the model's own answers are worth, by proximal policy optimisation.

    Args:
        epochs: passes over a task's problems. iterations: in their place, how often some are asked and learned from.
        prompts: problems asked in an iteration, over all processes; old ones that strategies mix in come on top.
        samples: answers drawn to each of them, at `temperature`, of at most `max_new_tokens` (null: as the task says,
            or a quarter more than its longest right answer).
        updates: passes over an iteration's answers, each in `minibatches` optimizer steps.
        micro_tokens: tokens in a forward pass, padding included.
        reward: a registered reward, or package.module:function; reward_seconds: what such a function may take for one
            answer, in one of `reward_workers` processes.
        advantage: group, an answer's reward less the mean of its problem's answers, by their deviation; rloo, less the
            mean of the others; gae, generalised advantage estimation with a critic (`gamma`, `gae_lambda`).
        critic: head, on the actor's last hidden states; model, a copy of the actor. Of gae alone.
        clip_low, clip_high: how far the ratio of new to old probability is followed below and above 1.
        value_clip: the same for values; null for no limit.
        kl: weight of KL(policy || reference) in the loss; reference: the policy at the start of the run, at the end of
            the last task, or the base model (the adapter off).
        entropy: weight of the policy's entropy, which is taken from the loss while its mean over a forward pass is
            below entropy_target, nats a token (null: always).
        learning_rate: auto: by the model's kind and width, as for 32 rows (`everlearn.learners.rates`).
        warmup: iterations at a task's beginning over which it rises: the optimizer's first steps are as large as any,
            whatever there is to learn.
        replayed: what is done with old rows that a strategy mixes in: rollout, they are asked again; answer, the
            answers kept with them are learned.
        stop_success: stop a task early when so many of `patience` iterations' answers were right; stop_signal: when
            only so many of their problems had answers that differ in reward. Null: never.
        sampling_dtype: of the weights that answers are drawn with; auto: bfloat16 where the machine has instructions
            for it.
        vllm: URL of a vLLM server that draws the answers, in training and in measurements; null: the run itself does.
            vllm_tensor_parallel: over how many GPUs it spreads the weights. vllm_seconds: how long it may take to
            answer. vllm_folder: where weights are laid down for it, null: below the run's folder; both see it.

    What is told of each iteration: docs/reinforcement.md.

    Cost: a forward pass over the prompts and one for each token of the longest answer; then (1 + 2 * updates) passes
    over what was drawn, in which a problem is read once for all its answers, equal answers once, and problems all of
    whose answers earn the same are left out (advantage group and rloo, without kl and entropy).

    Source: Schulman et al. 2017, arXiv 1707.06347 (PPO); Shao et al. 2024, arXiv 2402.03300 (advantage group: GRPO);
    He et al. 2025, arXiv 2505.22312 (Skywork-OR1), section 4.2 (entropy is held at a target).
    Departs: tokens weigh alike, whichever answer they are of; old log-probabilities are recomputed by the policy that
    learns, so that the first step's ratios are exactly 1; dropout is off.
    """

    epochs: int = 15
    iterations: int | None = None
    prompts: int = 48
    samples: int = 16
    temperature: float = 1.0
    max_new_tokens: int | None = None
    updates: int = 1
    minibatches: int = 1
    micro_tokens: int = 16384
    reward: str = VERIFIER
    reward_seconds: float = 10.0
    reward_workers: int = 2
    advantage: str = GROUP
    gamma: float = 1.0
    gae_lambda: float = 1.0
    critic: str = "head"
    critic_learning_rate: float = 1e-3
    clip_low: float = 0.2
    clip_high: float = 0.2
    value_clip: float | None = 0.5
    kl: float = 0.0
    reference: str = "start"
    entropy: float = 0.0
    entropy_target: float | None = None
    learning_rate: float | Literal["auto"] = AUTO
    warmup: int = 5
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    clip: float | None = 1.0
    precision: str = "no"
    replayed: str = "rollout"
    stop_success: float | None = 0.95
    stop_signal: float | None = 0.05
    patience: int = 5
    sampling_dtype: str = "auto"
    vllm: str | None = None
    vllm_tensor_parallel: int = 1
    vllm_seconds: float = 600.0
    vllm_folder: str | None = None

    traits: ClassVar[tuple[str, ...]] = ("rollouts",)
    train_on: ClassVar[str] = "last"
    learn: ClassVar[str] = "answer"
    uses_validation: ClassVar[bool] = False
    # kept between tasks by whoever leads the run: the critic's weights, and the policy's at the start
    critic_: dict[str, torch.Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)
    start_: dict[str, torch.Tensor] = field(init=False, repr=False, compare=False, default_factory=dict)
    told: Told | None = field(init=False, repr=False, compare=False, default=None)  # hears of each iteration

    def __post_init__(self) -> None:
        self._check_numbers()
        for name, allowed in CHOICES.items():
            check_choice(f"learner.{name}", getattr(self, name), allowed)
        if self.advantage == GAE and self.critic == "none":
            way_out = "Write head or model, or another advantage"
            raise ConfigError(describe("learner.critic", "advantage gae needs one", self.critic, way_out))
        if self.advantage != GAE and self.samples < 2:
            way_out = "Draw 2 or more, or write advantage: gae"
            what = f"advantage {self.advantage} compares a problem's answers"
            raise ConfigError(describe("learner.samples", what, self.samples, way_out))
        find("reward", self.reward, "learner.reward")
        if self.vllm is not None and not self.vllm.startswith(("http://", "https://")):
            raise ConfigError(describe("learner.vllm", "is no URL", self.vllm, "Write http://host:port, or null"))

    def _check_numbers(self) -> None:
        counts = (
            "epochs", "iterations", "prompts", "samples", "max_new_tokens", "updates", "minibatches", "micro_tokens",
            "reward_workers", "patience", "warmup", "vllm_tensor_parallel",
        )  # fmt: skip
        above = (
            "temperature", "reward_seconds", "critic_learning_rate", "clip_low", "clip_high", "value_clip", "clip",
            "entropy_target", "learning_rate", "vllm_seconds",
        )  # fmt: skip
        shares, weights = ("gamma", "gae_lambda", "stop_success", "stop_signal"), ("kl", "entropy", "weight_decay")
        for names, bound in (
            (counts, {"low": 1}), (above, {"above": 0}), (shares, {"low": 0, "high": 1}), (weights, {"low": 0}),
        ):  # fmt: skip
            for name in names:
                if getattr(self, name) not in (None, AUTO):
                    check_number(f"learner.{name}", getattr(self, name), **bound)
        for i, beta in enumerate(self.betas):
            check_number(f"learner.betas[{i}]", beta, low=0, high=1 - 1e-9)

    def check_model(self, model: Model) -> None:
        """Raise ConfigError where the settings can't hold for a model."""
        room, most = self.max_new_tokens, model.objective.max_length - 1
        if room is not None and room >= most:
            way_out = f"Give less than {most}, for the prompt needs its part"
            raise ConfigError(describe("learner.max_new_tokens", "leaves the context no prompt", room, way_out))
        if self.kl > 0 and self.reference == "base" and model.adapters.mode == "full":
            way_out = "Write start or last, or train a LoRA"
            what = "with all weights trained the base isn't kept"
            raise ConfigError(describe("learner.reference", what, self.reference, way_out))

    def train(self, run: "Run", task: Task, mixture: Mixture, saved: dict[str, Any] | None = None) -> Progress:
        """Learn from the model's own answers, from the start or from what `run.checkpoint` saved in mid-task."""
        lesson = _Lesson(self, run, task, mixture, saved)
        with lesson.rewards:
            try:
                lesson.go()
            finally:
                lesson.close()
        return lesson.progress

    def sampler(self, run: "Run", dtype: str) -> Sampler | ServerSampler:
        """Return what draws answers from a run's model, by weights of a dtype where it is the run itself."""
        if self.vllm is None:
            return Sampler(run.model, run.accelerator.device, dtype)
        return ServerSampler(run, self.vllm, self.vllm_tensor_parallel, self.vllm_seconds, self.vllm_folder)

    def rewards(self) -> Rewards:
        """Return what answers are judged by."""
        limits = {"time_limit_s": self.reward_seconds, "workers": self.reward_workers}
        return Rewards.of(self.reward, **limits)


class _Lesson:
    """One task's iterations."""

    def __init__(self, ppo: PPO, run: "Run", task: Task, mixture: Mixture, saved: dict[str, Any] | None):
        self.ppo, self.run, self.task = ppo, run, task
        self.seed_parts = (run.seed, run.position, task.name, "reinforcement")
        self.problems = Problems(
            mixture, run.model.objective, self.seed_parts, ask_again=ppo.replayed == "rollout"
        )  # fmt: skip
        self.rewards = ppo.rewards()
        self.room = ppo.max_new_tokens or run.model.objective.answer_room(task)
        n_problems = self.problems.sizes[0]  # none where a strategy learned them before
        self.n_iterations = (ppo.iterations or math.ceil(ppo.epochs * n_problems / ppo.prompts)) if n_problems else 0
        params = run.model.adapters.trainable()
        if not ppo.start_:
            ppo.start_ = snapshot(params)
        rate = ppo.learning_rate
        if rate == AUTO:
            rate = float(f"{learning_rate_for(run.model, ENOUGH_ROWS):.2g}")
            run.inform(f"{task.name}: learning rate {rate:g}.")
        self.progress = Progress(learning_rate=rate, batch_size=ppo.prompts * ppo.samples)
        self.began = snapshot(params)
        self.recent: list[list[float]] = []  # success and signal of the last iterations
        self.kept: dict[tuple[int, int], _Best] = {}  # of the task's own problems, by address
        if saved is not None:
            own = {name: saved[name][run.processes.rank] for name in OWN}
            self.progress = Progress(**{**saved["progress"], **own})
            self.began, self.recent = saved["began"], saved["recent"]
            self.kept = {tuple(address): tuple(best) for address, best in saved["kept"]}
        n_steps = self.n_iterations * ppo.updates * ppo.minibatches
        self.step = Step(run, task, params, n_steps=n_steps, learning_rate=rate)
        fused = run.accelerator.device.type in ("cpu", "cuda")
        self.optimizer = torch.optim.AdamW(
            params.values(), lr=rate, betas=tuple(ppo.betas), weight_decay=ppo.weight_decay, fused=fused
        )
        self.critic = None
        if ppo.advantage == GAE:
            learned = ppo.critic_ if saved is None else saved["critic"]
            self.critic = Critic(run, ppo.critic, ppo.critic_learning_rate, ppo.clip, learned)
        if saved is not None:
            self.optimizer.load_state_dict(saved["optimizer"])
            lay_out_state(self.optimizer)
            if self.critic is not None:
                self.critic.load_optimizer(saved["critic_optimizer"])
        self.packed = can_be_packed(run.model)
        self.sampler = ppo.sampler(run, ppo.sampling_dtype)
        self.hooks = Hooks.of(run)
        self.started = time.perf_counter() - self.progress.elapsed_s

    def go(self) -> None:
        """Go through the iterations that are left."""
        run = self.run
        run.model.network.eval()  # dropout off: the ratio of the first step is 1
        run.listener.training(self.task, self.n_iterations, self.progress.epoch)
        while self.progress.epoch < self.n_iterations and not self.progress.stopped:
            numbers = self._iterate(self.progress.epoch)
            self.progress.epoch += 1
            self._look_whether_to_stop(numbers)
            self.progress.elapsed_s = time.perf_counter() - self.started
            if self.ppo.told is not None:
                last = self.progress.stopped or self.progress.epoch == self.n_iterations
                self.ppo.told(run, self.task, {"iteration": self.progress.epoch, **numbers}, last)
            run.listener.step(self.progress.epoch, numbers["loss"])
            run.after_step(self.task, self._state)
        if self.critic is not None:
            self.ppo.critic_ = {name: values.clone() for name, values in self.critic.state().items()}
        self.progress.learned = self._best_rows()

    def close(self) -> None:
        """Leave the model as it was found."""
        if self.critic is not None:
            self.critic.close()
        self.run.model.train()

    def _best_rows(self) -> list[Row] | None:
        """Return the problems whose best answer is worth most, with it; None where no answer was worth anything."""
        kept = self._kept_by_all()
        best = max((reward for reward, _, _ in kept.values()), default=0.0)
        return [kept[address][2] for address in sorted(kept) if kept[address][0] == best] if best > 0 else None

    def _kept_by_all(self) -> dict[tuple[int, int], "_Best"]:
        """Return what all processes keep: of a problem that several were asked, the best answer, then the newest."""
        merged: dict[tuple[int, int], _Best] = {}
        for part in self.run.processes.gather(self.kept):
            for address, best in part.items():
                if address not in merged or best[:2] > merged[address][:2]:
                    merged[address] = best
        return merged

    def _iterate(self, number: int) -> dict[str, Any]:
        """Ask, judge and learn once; return what is told of it."""
        began = time.perf_counter()
        with self._saving_on_failure(alike=True):  # as a server's are
            answered, n_cut = self._ask(number)
        drawn = time.perf_counter()
        with self._saving_on_failure(alike=False):
            parts = self._judge(number, answered)
        judged = time.perf_counter()
        numbers = {**self._outcome(answered, n_cut), **parts}
        numbers |= self._learn(number, answered)
        self._check_finite(number, numbers)
        ended = time.perf_counter()
        numbers["seconds"] = {"draw": drawn - began, "judge": judged - drawn, "learn": ended - judged}
        return numbers

    def _check_finite(self, number: int, numbers: dict[str, Any]) -> None:
        off = {name: n for name, n in numbers.items() if isinstance(n, float) and not math.isfinite(n)}
        if off:
            where = f"task {self.task.name!r}, iteration {number + 1} of {self.n_iterations}"
            way_out = "Lower learner.learning_rate, or set learner.clip; the weights of before are kept"
            raise TrainingError(describe(where, "the policy has run away", off, way_out))

    def _ask(self, number: int) -> tuple[list[Answered], int]:
        """Return this process's problems with the answers drawn to them, and how many of these were cut off."""
        ppo, run, objective = self.ppo, self.run, self.run.model.objective
        asked, own = self.problems.asked(number, ppo.prompts), slice(run.processes.rank, None, run.processes.size)
        self.sampler.refresh()
        questions = objective.questions([row for _, _, row in asked], self.room)
        generator = generator_for(*self.seed_parts, number, 0, "draw")
        drawn = self.sampler.draw(questions, ppo.samples, self.room, generator, ppo.temperature, own)
        asked, questions = asked[own], questions[own]
        answered = [
            Answered.by(responses, objective, task, row, address, prompt)
            for (address, task, row), prompt, responses in zip(asked, questions, drawn, strict=True)
        ]
        return answered, n_cut_off(objective, drawn)

    @contextmanager
    def _saving_on_failure(self, *, alike: bool) -> Iterator[None]:
        """Save the run as it was before the iteration where drawing or judging fails, so that nothing is lost.

        alike: whether that happens to all processes together: saving is done together.
        """
        try:
            yield
        except TrainingError:
            if alike or self.run.processes.size == 1:
                self.run.checkpoint({"task": self.task.name, "learner": self._state()})
            raise

    def _judge(self, number: int, answered: list[Answered]) -> dict[str, float]:
        """Say what each answer is worth, and whether it is right; return the means of what the reward tells beside."""
        for one in answered:
            one.right = [is_right(one.task, text, one.row, self.run.model.objective) for text in one.texts]
        parts: dict[str, float] = {}
        if self.ppo.reward == VERIFIER:  # of each problem's own task
            values = [float(right) for one in answered for right in one.right]
        else:
            asked = [(self._question(one), text, one.row) for one in answered for text in one.texts]
            worth = self.rewards(*map(list, zip(*asked, strict=True))) if asked else self.rewards([], [], [])
            values = worth.values.tolist()
            parts = {f"reward/{name}": self._mean_of_given(part, answered) for name, part in worth.parts.items()}
        of_answers = iter(values)
        for one in answered:
            one.rewards = [next(of_answers) for _ in one.responses]
            if one.address[0] == 0 and one.task.name == self.task.name:
                self._keep(number, one)
        return parts

    def _mean_of_given(self, values: Any, answered: list[Answered]) -> float | None:
        """Return the mean of what a reward told beside its number, over the answers for which it did."""
        counts = [count for one in answered for count in one.counts]
        given = [(value, count) for value, count in zip(values.tolist(), counts, strict=True) if value == value]
        return self._mean(*zip(*given, strict=True)) if given else None

    def _question(self, one: Answered) -> str:
        """Return what the reward is told was asked: the row's own prompt, or the conversation as the model read it."""
        return one.row.get("prompt") or self.run.model.objective.prompt_and_completion(one.row)[0]

    def _keep(self, number: int, one: Answered) -> None:
        """Keep the best answer to a problem, the newest where several are."""
        place = max(range(len(one.rewards)), key=lambda i: one.rewards[i])
        if one.address not in self.kept or one.rewards[place] >= self.kept[one.address][0]:
            self.kept[one.address] = (one.rewards[place], number, with_answer(one.row, one.texts[place]))

    def _outcome(self, answered: list[Answered], n_cut: int) -> dict[str, Any]:
        """Return what an iteration's answers came to: of the task's own problems, those asked again aside."""
        own = [one for one in answered if one.address[0] == 0]
        counts = [count for one in own for count in one.counts]
        every = [count for one in answered for count in one.counts]
        lengths = [len(ids) for one in answered for ids in one.responses]
        differ = [float(max(one.rewards) > min(one.rewards)) for one in own]
        return {
            "success": self._mean([float(right) for one in own for right in one.right], counts),
            "reward": self._mean([reward for one in own for reward in one.rewards], counts),
            "signal": self._mean(differ, [1] * len(own)),
            "length": self._mean(lengths, every),
            "cut_off": self.run.processes.sum(n_cut) / max(1, self.run.processes.sum(sum(every))),
            "n_answers": int(self.run.processes.sum(sum(every))),
        }

    def _mean(self, values: Sequence[float], counts: Sequence[int]) -> float:
        """Return the mean of values that each came so often, over all processes."""
        total = sum(value * count for value, count in zip(values, counts, strict=True))
        return self.run.processes.sum(total) / max(1, self.run.processes.sum(sum(counts)))

    def _learn(self, number: int, answered: list[Answered]) -> dict[str, Any]:
        """Take the steps of an iteration."""
        ppo, run = self.ppo, self.run
        self.step.learning_rate = self.progress.learning_rate * min(1.0, (number + 1) / ppo.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = self.step.learning_rate
        self._compare(answered)
        every = ppo.kl > 0 or ppo.entropy > 0 or ppo.advantage == GAE  # these hold where answers earn the same too
        places = range(run.processes.rank, len(answered) * run.processes.size, run.processes.size)
        used = {i: one for i, one in zip(places, answered, strict=False) if every or any(one.advantages)}
        steps = self._minibatches(number, used)
        loss, norms, tally = 0.0, [], Tally()
        n_tokens, n_used = (
            run.processes.sum(sum(one.n_drawn_tokens for one in some)) for some in (answered, used.values())
        )
        share = n_used / n_tokens if n_used else 1.0
        if steps:
            self._before_update([micro for step in steps for micro in step])
            for update in range(ppo.updates):
                order = torch.randperm(len(steps), generator=generator_for(*self.seed_parts, number, update, "order"))
                for place in order.tolist():
                    micros = steps[place]
                    policy = PolicyLoss(ppo, run, micros, self.critic, tally, share)
                    self.step.index = self.progress.index
                    batches, rows = [micro.batch for micro in micros], [micro.rows for micro in micros]
                    loss += take_step(run, self.step, batches, rows, self.optimizer, self.hooks, ppo.clip, policy)
                    if self.critic is not None:
                        self.critic.step()
                    if self.step.gradient_norm is not None:
                        norms.append(self.step.gradient_norm.item())
                    self.progress.index += 1
            self.progress.loss_sum += loss
            self.progress.n_tokens += sum(one.n_tokens for one in used.values()) * ppo.updates
        n_steps = max(1, ppo.updates * len(steps))
        moved, size = distance(self.step.params, self.began)
        return {
            "loss": run.processes.sum(loss) / n_steps,
            **tally.means(run),
            "gradient_norm": sum(norms) / len(norms) if norms else 0.0,
            "gradient_norm_relative": (sum(norms) / len(norms) / size if norms else 0.0) if size else None,
            "weight_change": moved / size if size else None,
        }

    def _compare(self, answered: list[Answered]) -> None:
        """Give each answer its advantage over the others to its problem; GAE's come token by token, later."""
        if self.ppo.advantage == GAE or not answered:
            return
        rewards = torch.tensor(
            [[r for r, n in zip(one.rewards, one.counts, strict=True) for _ in range(n)] for one in answered]
        )
        of_group = group_advantages if self.ppo.advantage == GROUP else leave_one_out_advantages
        for one, values in zip(answered, of_group(rewards).tolist(), strict=True):
            places = [sum(one.counts[:i]) for i in range(len(one.counts))]
            one.advantages = [values[place] for place in places]

    def _minibatches(self, number: int, used: dict[int, Answered]) -> list[list[Micro]]:
        """Return what each optimizer step of an update learns; rows as they stand are dealt out over the steps.

        Args:
            used: {number in the iteration: problem}, this process's.
        """
        ppo, processes = self.ppo, self.run.processes
        everyone = sorted(i for part in processes.gather(list(used)) for i in part)
        order = torch.randperm(len(everyone), generator=generator_for(*self.seed_parts, number, "minibatches")).tolist()
        rows = self.problems.as_they_are(number, ppo.prompts)
        n_tokens = processes.sum(sum(len(ids) for one in used.values() for ids in one.responses))
        mean_length = n_tokens / max(1, processes.sum(sum(len(one.responses) for one in used.values())))
        steps = []
        for place in range(ppo.minibatches):
            dealt = [everyone[i] for i in order[place :: ppo.minibatches]]
            as_they_are = rows[place :: ppo.minibatches]
            if not dealt and not as_they_are:
                continue
            own = [used[i] for i in dealt if i in used]
            micros = [self._micro(part) for part in cut(own, ppo.micro_tokens, packed=self.packed)]
            if as_they_are[processes.rank :: processes.size]:
                micros.append(self._as_they_are(as_they_are[processes.rank :: processes.size], mean_length))
            steps.append(micros)
        return steps

    def _micro(self, answered: list[Answered]) -> Micro:
        device = self.run.accelerator.device
        batch = lay_out(self.run.model, answered, packed=self.packed)
        rows = [one.address for one in answered for _ in (one.responses[:1] if self.packed else one.responses)]
        counts = torch.tensor([n for one in answered for n in one.of_tokens(one.counts)], device=device).float()
        micro = Micro(batch, answered, rows, counts)
        if self.ppo.advantage != GAE:
            own = [value for one in answered for value in one.of_tokens(one.advantages)]
            micro.advantages = torch.tensor(own, device=device)
        return micro

    def _as_they_are(self, addresses: list[tuple[int, int]], mean_length: float) -> Micro:
        """Return rows to be learned as they stand: each counts as much as an answer of the mean length."""
        encoded = self.problems.encoded
        batch, rows = encoded.__getitems__(addresses), encoded.in_batch_order(addresses)
        n = self.run.model.objective.items_of_rows(batch)
        counts = torch.repeat_interleave(max(1.0, mean_length) / n.clamp(min=1), n)
        return Micro(batch, None, rows, counts.to(self.run.accelerator.device))

    def _before_update(self, micros: list[Micro]) -> None:
        """Ask policy, reference and critic what they say of the answers before anything is learned from them."""
        ppo, run = self.ppo, self.run
        own = [micro for micro in micros if micro.answered is not None]
        if ppo.updates * ppo.minibatches > 1 or self.critic is not None:
            with torch.no_grad(), whole(run.model.network):
                for micro in own:
                    batch = to_device(micro.batch, run.accelerator.device)
                    with run.accelerator.autocast():
                        micro.old = log_p_of(self._outputs(batch), ppo.temperature)
                        if self.critic is not None and not self.critic.is_sharded:  # of a head: on what was just seen
                            micro.values = self.critic.values(batch)
        if self.critic is not None and self.critic.is_sharded:  # one after the other, for the memory of whole weights
            with torch.no_grad(), self.critic.whole(), run.accelerator.autocast():
                for micro in own:
                    micro.values = self.critic.values(to_device(micro.batch, run.accelerator.device))
        if ppo.kl > 0:
            with self._reference():
                for micro in own:
                    with run.accelerator.autocast():
                        outputs = self._outputs(to_device(micro.batch, run.accelerator.device))
                        micro.reference = log_p_of(outputs, ppo.temperature)
        if self.critic is not None:
            self._generalise(own)

    def _outputs(self, batch: Batch) -> Outputs:
        return self.run.model.objective.forward(self.run.model.network, batch)

    def _reference(self):
        if self.ppo.reference == "base":
            return as_base(self.run)
        weights = self.ppo.start_ if self.ppo.reference == "start" else self.began
        return as_teacher(self.run, reference_weights(self.run.model, weights))

    def _generalise(self, micros: list[Micro]) -> None:
        """Give each token its advantage and its return; the reward comes with the last token of an answer."""
        totals = torch.zeros(3, dtype=torch.float64, device=self.run.accelerator.device)
        for micro in micros:
            lengths = [len(ids) for one in micro.answered for ids in one.responses]
            worth = torch.tensor([reward for one in micro.answered for reward in one.rewards], device=totals.device)
            values = torch.nn.utils.rnn.pad_sequence(micro.values.split(lengths), batch_first=True)
            ends = torch.tensor(lengths, device=totals.device)
            mask = torch.arange(values.shape[1], device=totals.device) < ends[:, None]
            rewards = torch.zeros_like(values).scatter_(1, ends[:, None] - 1, worth[:, None].to(values.dtype))
            advantages, returns = generalised_advantages(rewards, values, mask, self.ppo.gamma, self.ppo.gae_lambda)
            micro.advantages, micro.returns = advantages[mask], returns[mask]
            totals += moments(micro.advantages, micro.counts)
        self.run.processes.all_reduce([totals])
        for micro in micros:
            micro.advantages = whiten(micro.advantages, micro.counts, totals)

    def _look_whether_to_stop(self, numbers: dict[str, Any]) -> None:
        ppo = self.ppo
        self.recent = [*self.recent, [numbers["success"], numbers["signal"]]][-ppo.patience :]
        if len(self.recent) < ppo.patience:
            return
        success, signal = (sum(values) / ppo.patience for values in zip(*self.recent, strict=True))
        if ppo.stop_success is not None and success >= ppo.stop_success:
            self.progress.stopped, numbers["stopped"] = True, "success"
            self.run.inform(f"{self.task.name}: {success:.0%} of the answers are right; stopped early.")
        elif ppo.stop_signal is not None and ppo.advantage != GAE and signal < ppo.stop_signal:
            self.progress.stopped, numbers["stopped"] = True, "signal"
            self.run.note(
                f"Task {self.task.name!r}: stopped after {self.progress.epoch} iterations, for only {signal:.0%} of "
                "the problems have answers that differ in reward, and nothing is learned from the others. More "
                "samples, a higher temperature, learner.entropy, easier problems or a warm start may help."
            )

    def _state(self) -> dict[str, Any]:
        """Return what `train` needs to go on from here, bit for bit."""
        progress = self.progress
        state = {
            "progress": asdict(progress),
            **{name: self.run.processes.gather(vars(progress)[name]) for name in OWN},
            "began": self.began,
            "recent": self.recent,
            "kept": [[list(address), list(best)] for address, best in self._kept_by_all().items()],
            "optimizer": self.optimizer.state_dict(),
        }
        if self.critic is not None:
            state |= {"critic": self.critic.state(), "critic_optimizer": self.critic.optimizer.state_dict()}
        return state
