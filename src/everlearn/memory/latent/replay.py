"""Generative replay of hidden states: what the network made of earlier tasks' rows is drawn anew, and held."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from everlearn.errors import ConfigError, check_number, describe
from everlearn.functional.distill import distillation_loss
from everlearn.learners.teacher import as_teacher
from everlearn.memory.latent.fidelity import relative_error
from everlearn.memory.latent.generator import Decoder, Generator, train_generator
from everlearn.memory.latent.layers import (
    Latents,
    answers_from,
    blocks_of,
    check_cut,
    hidden_states,
    lowest_adapted,
    within,
)
from everlearn.memory.latent.mixture import draw, fit_mixture, fit_mixtures, kinds_of
from everlearn.memory.latent.reading import batch_of, encoded, latents_of, read_latents
from everlearn.seeds import generator_for, seed_for, seeded
from everlearn.strategy import MAKES_ROWS, NEEDS_TARGETS, Strategy, learned
from everlearn.types import Step, Task

if TYPE_CHECKING:
    from everlearn.way import Run

COMPARED_ROWS = 64  # on which it is measured how true the replayed function is

_MOVES = "all weights are trained, and hidden states that were kept would be those of a network that is gone"
_ALL_DATA = "all earlier data is trained on, so there is nothing left to replay"
_PROMPTS = "prompts stand among the positions, whose hidden states are replayed without them"


# layer; head, which answers; sizes, of the decoder; decoder {name: tensor}; mixture
Memory = dict[str, Any]


@dataclass
class LatentReplay(Strategy):
    """For each task a decoder of hidden states and a mixture of Gaussians, and a loss on what is drawn from them."""

    replay_alpha: float = 0.2
    feature_alpha: float = 0.1
    layer: int | None = None
    replay_batch_size: int = 8
    encoding_batch_size: int = 16
    slots: int = 8
    code_size: int = 32
    width: int = 128
    depth: int = 1
    components: int = 8
    epochs: int = 30
    learning_rate: float = 2e-3
    max_rows: int = 500
    max_tokens: int = 128

    memories_: dict = learned(dict)  # task name -> a `Memory`
    teacher_: dict = learned(dict)  # trainable weights before the task
    told_: dict = learned(dict)  # of the last task, see `facts`

    protects: ClassVar[bool] = True
    neutral: ClassVar[dict] = {"replay_alpha": 0.0, "feature_alpha": 0.0}
    conflicts: ClassVar[dict[str, str]] = {
        **dict.fromkeys(("joint", "cumulative"), _ALL_DATA),
        **dict.fromkeys(("l2p", "progressive_prompts"), _PROMPTS),
    }
    unsuited: ClassVar[dict[str, str]] = {
        "full": _MOVES,
        "tensor": "it replays what goes into one of a language model's blocks, and a plain module has none",
        "prompt": "there is no LoRA that it could hold",
        **dict.fromkeys(("numbers", "several_labels"), "it learns to generate rows of one class each"),
        "soft_prompt": _PROMPTS,
        "online": "it learns to generate from whole tasks, and problems come one by one",
        "trainer": MAKES_ROWS,
        **dict.fromkeys(("preferences", "rollouts"), NEEDS_TARGETS),
    }

    def __post_init__(self) -> None:
        for name in ("replay_alpha", "feature_alpha"):
            check_number(f"{self.name}.{name}", vars(self)[name], low=0)
        if self.layer is not None:
            check_number(f"{self.name}.layer", self.layer, low=0)
        least = {"code_size": 2, "width": 4, "max_tokens": 4}
        for name in ("replay_batch_size", "encoding_batch_size", "slots", "depth", "components", "epochs", "max_rows"):
            check_number(f"{self.name}.{name}", vars(self)[name], low=1)
        for name, low in least.items():
            check_number(f"{self.name}.{name}", vars(self)[name], low=low)
        check_number(f"{self.name}.learning_rate", self.learning_rate, above=0)
        self._built: dict[str, tuple[Memory, Decoder]] = {}  # decoders, and the memories that they were built of

    @property
    def n_kinds(self) -> int:
        """How many kinds of rows are told apart, all others being one more; 0: none."""
        return 0

    def begin_task(self, run: "Run", task: Task) -> None:
        self.teacher_ = {}
        if self._is_idle:
            return
        self._check(run, task)
        if self._past(run):
            self.teacher_ = {name: p.detach().clone() for name, p in run.model.adapters.trainable().items()}

    def penalty(self, step: Step) -> torch.Tensor | None:
        """Return the loss on rows drawn for this step, the same with each of its micro-batches."""
        if not self.teacher_:
            return None
        run, past = step.run, self._past(step.run)
        random = generator_for(run.seed, self.name, run.position, step.task.name, step.index)
        name = past[int(torch.randint(len(past), (), generator=random))]
        latents, layer = self.generate(run, name, self.replay_batch_size, random), self.memories_[name]["layer"]
        with as_teacher(run, self.teacher_):
            before, features_before = answers_from(run.model, latents, layer)
        with run.model.evaluating():
            now, features_now = answers_from(run.model, latents, layer)
        held = distillation_loss(before.logits, now.logits, strength=self.replay_alpha)
        return held + self.feature_alpha * (features_now.float() - features_before.float()).square().mean()

    def end_task(self, run: "Run", task: Task) -> None:
        self.teacher_ = {}
        if self._is_idle or not len(task.train):
            return
        layer, parts = self._layer(run), (run.seed, self.name, run.position, task.name)
        order = torch.randperm(len(task.train), generator=generator_for(*parts, "rows"))[: self.max_rows]
        features = encoded(run.model, task, sorted(order.tolist()), self.max_tokens)
        if not features:
            run.note(f"{self.name}: no row of {task.name} has a target to be replayed.")
            return
        latents, answers = read_latents(run, features, layer, self.encoding_batch_size)
        kinds, prototypes = kinds_of(answers, self.n_kinds).to(latents.states.device), None
        if self.n_kinds:
            prototypes = torch.stack([mean_state(latents, kinds == kind) for kind in range(int(kinds.max()) + 1)])
        of_rows, sizes = None if prototypes is None else prototypes[kinds], self._sizes(latents)
        with seeded(seed_for(*parts, "generator")):
            generator = Generator(Decoder(**sizes), self.depth).to(latents.states.device)
        generator.prepare(latents)
        train_generator(
            generator, latents, of_rows, epochs=self.epochs, batch_size=self.encoding_batch_size,
            learning_rate=self.learning_rate, random=generator_for(*parts, "training"),
        )  # fmt: skip
        codes, restored = generator.codes_and_restored(latents, of_rows)
        numbers, seed = (codes, latents.lengths, latents.targets.sum(1)), seed_for(*parts, "mixture")
        if prototypes is None:
            mixture = fit_mixture(*numbers, self.components, seed)
        else:
            mixture = fit_mixtures(*numbers, kinds, prototypes, self.components, seed)
        weights = {name: tensor.detach().clone() for name, tensor in generator.decoder.state_dict().items()}
        self.memories_[task.name] = {
            "layer": layer, "head": int(latents.heads[0]), "sizes": sizes, "decoder": weights, "mixture": mixture,
        }  # fmt: skip
        self._tell(run, task, features, latents, restored)

    def facts(self) -> dict[str, Any]:
        """Return what is kept of the last task and how true it is: `layer`; `decoder_bytes`, `mixture_bytes`; `error`,
        of restored states; `agreement`, the share of targets at which restored states get the answer that the real ones
        get; `full_agreement`, where LoRA stands below the layer, the share at which real states get the answer of the
        whole network."""  # fmt: skip
        return dict(self.told_)

    @torch.no_grad()
    def generate(self, run: "Run", task: str, n: int, random: torch.Generator) -> Latents:
        """Draw n rows' hidden states as they go into the layer, of a task that was learned.

        Raises:
            KeyError: if nothing is kept of the task.
        """
        memory, decoder = self.memories_[task], self._decoder(run, task)
        drawn = draw(memory["mixture"], n, decoder.shape, self.max_tokens, random).to(run.accelerator.device)
        states, scores = decoder(drawn.codes, drawn.lengths, drawn.prototypes)
        scores = scores.masked_fill(~within(drawn.lengths, states.shape[1]), -torch.inf)
        if run.model.kind == "causal":
            scores[:, 0] = -torch.inf  # a first token is predicted from nothing
        ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        targets = (ranks < drawn.n_targets[:, None]) & scores.isfinite()
        return Latents(decoder.restored(states), drawn.lengths, targets, torch.full_like(drawn.lengths, memory["head"]))

    @property
    def _is_idle(self) -> bool:
        return self.replay_alpha == 0 and self.feature_alpha == 0

    def _past(self, run: "Run") -> list[str]:
        """Return the tasks that are replayed."""
        return [name for name in self.memories_ if name != run.current]

    def _layer(self, run: "Run") -> int:
        if self.layer is not None:
            return self.layer
        n_blocks = len(blocks_of(run.model.network))
        return min(max(lowest_adapted(run.model.network), n_blocks // 2), n_blocks - 1)

    def _sizes(self, latents: Latents) -> dict[str, int]:
        width = latents.states.shape[-1]
        return {
            "width": width, "inner": max(4, min(self.width, width) // 4 * 4), "n_slots": self.slots,
            "code_size": self.code_size, "depth": self.depth, "conditioned": int(self.n_kinds > 0),
        }  # fmt: skip

    def _check(self, run: "Run", task: Task) -> None:
        """Raise ConfigError where there is no such layer, ModelError where the network can't be cut there."""
        n_blocks, layer = len(blocks_of(run.model.network)), self._layer(run)
        if layer >= n_blocks:
            way_out = f"Blocks are 0 to {n_blocks - 1}"
            raise ConfigError(describe(f"{self.name}.layer", f"the model has {n_blocks} blocks", layer, way_out))
        if self.memories_ or not len(task.train):
            return
        features = encoded(run.model, task, range(min(2, len(task.train))), self.max_tokens)
        if not features:
            return
        batch = batch_of(run, features)
        with torch.no_grad(), run.model.evaluating():
            states = hidden_states(run.model, batch, layer)
        check_cut(run.model, batch, latents_of(run.model, batch, states), layer)

    def _decoder(self, run: "Run", task: str) -> Decoder:
        memory = self.memories_[task]
        if self._built.get(task, (None,))[0] is not memory:
            with seeded(0):
                decoder = Decoder(**memory["sizes"])
            decoder.load_state_dict(memory["decoder"])
            self._built[task] = (memory, decoder.to(run.accelerator.device))
        return self._built[task][1]

    def _tell(
        self, run: "Run", task: Task, features: Sequence[dict[str, Any]], latents: Latents, restored: Latents
    ) -> None:
        memory, some = self.memories_[task.name], slice(COMPARED_ROWS)
        layer = memory["layer"]
        with torch.no_grad(), run.model.evaluating():
            real, found = (
                answers_from(run.model, rows.pick(some), layer)[0].logits.argmax(-1) for rows in (latents, restored)
            )
        self.told_ = {
            "layer": layer,
            "decoder_bytes": sum(tensor.nbytes for tensor in memory["decoder"].values()),
            "mixture_bytes": sum(tensor.nbytes for tensor in memory["mixture"].values()),
            "error": round(relative_error(latents.states, restored.states, latents.mask), 4),
            "agreement": round((real == found).float().mean().item(), 4),
        }
        if layer > lowest_adapted(run.model.network):
            with torch.no_grad(), run.model.evaluating():
                whole = run.model.objective.forward(run.model.network, batch_of(run, features[some])).logits.argmax(-1)
            share = self.told_["full_agreement"] = round((real == whole).float().mean().item(), 4)
            run.inform(
                f"{self.name}: LoRA below block {layer} is no part of what is replayed; without it {share:.1%} of the "
                f"answers to rows of {task.name} stay the same."
            )


def mean_state(latents: Latents, chosen: torch.Tensor) -> torch.Tensor:
    """Return the mean hidden state over all positions of the chosen rows, bool [n_rows]: [width]."""
    return latents.states[chosen][latents.mask[chosen]].mean(0)
