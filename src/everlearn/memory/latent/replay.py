"""Generative replay of hidden states: what the network made of earlier tasks' rows is drawn anew, and held."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from everlearn.errors import ConfigError, check_number, describe
from everlearn.functional.distill import distillation_loss
from everlearn.learners.teacher import as_teacher
from everlearn.memory.latent.fidelity import relative_error
from everlearn.memory.latent.generator import Generator, Rehearsal, train_generator
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


@dataclass
class LatentReplay(Strategy):
    """A generator of hidden states, a mixture of Gaussians for each task, and a loss on what is drawn from them."""

    replay_alpha: float = 0.2
    feature_alpha: float = 0.1
    layer: int | None = None
    replay_batch_size: int = 8
    encoding_batch_size: int = 16
    slots: int = 8
    code_size: int = 16
    width: int = 128
    depth: int = 1
    components: int = 8
    epochs: int = 30
    learning_rate: float = 2e-3
    max_rows: int = 500
    max_tokens: int = 128

    generator_: dict = learned(dict)  # sizes, and weights {name: tensor}; one for all tasks
    mixtures_: dict = learned(dict)  # task name -> its mixture
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
        self._built: tuple[dict[str, Any], Generator] | None = None  # what `generator_` was when it was built

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
        run, layer = step.run, self.generator_["sizes"]["layer"]
        random = generator_for(run.seed, self.name, run.position, step.task.name, step.index)
        latents = self.generate(run, self._past(run), self.replay_batch_size, random)
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
        of_rows = None if prototypes is None else prototypes[kinds]
        generator = self._generator(run)
        if generator is None:
            generator = self._begin(run, latents)
        train_generator(
            generator, latents, of_rows, rehearse=self._rehearsal(run, generator, task), epochs=self.epochs,
            batch_size=self.encoding_batch_size, learning_rate=self.learning_rate,
            random=generator_for(*parts, "training"),
        )  # fmt: skip
        self._keep(generator, layer)
        with torch.no_grad():
            codes = generator.encode(generator.standardised(latents.states), latents.lengths, of_rows)
            restored = generator.restored(generator.decode(codes, latents.lengths, of_rows)[0])
        numbers, seed = (codes, latents.lengths, latents.targets.sum(1)), seed_for(*parts, "mixture")
        mixture = (
            fit_mixture(*numbers, self.components, seed)
            if prototypes is None
            else fit_mixtures(*numbers, kinds, prototypes, self.components, seed)
        )
        self.mixtures_[task.name] = {**mixture, "head": latents.heads[0].cpu()}
        self.told_ = self._told(run, features, latents, latents.with_states(restored))

    def facts(self) -> dict[str, Any]:
        """Return what is kept and how true it is: `layer`; `generator_bytes`, for all tasks; `task_bytes`; `error`, of
        restored states; `agreement`, the share of targets at which restored states get the answer that the real ones
        get; `full_agreement`, where LoRA stands below the layer, the share at which real states get the answer of the
        whole network."""  # fmt: skip
        return dict(self.told_)

    @torch.no_grad()
    def generate(self, run: "Run", tasks: Sequence[str], n: int, random: torch.Generator) -> Latents:
        """Draw n rows' hidden states as they go into the layer, of tasks that were learned, each as likely.

        Raises:
            KeyError: if a task has no mixture.
        """
        device, generator = run.accelerator.device, self._generator(run)
        sizes = self.generator_["sizes"]
        mixtures = [self.mixtures_[name] for name in tasks]
        drawn = draw(mixtures, n, (sizes["n_slots"], sizes["code_size"]), self.max_tokens, random).to(device)
        states, scores = generator.decode(drawn.codes, drawn.lengths, drawn.prototypes)
        mask = within(drawn.lengths, states.shape[1])
        scores = scores.masked_fill(~mask, -torch.inf)
        if run.model.kind == "causal":
            scores[:, 0] = -torch.inf  # a first token is predicted from nothing
        ranks = scores.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        targets = (ranks < drawn.n_targets[:, None]) & scores.isfinite()
        return Latents(generator.restored(states), drawn.lengths, targets, drawn.heads)

    @property
    def _is_idle(self) -> bool:
        return self.replay_alpha == 0 and self.feature_alpha == 0

    def _past(self, run: "Run") -> list[str]:
        """Return the tasks that are replayed."""
        return [name for name in self.mixtures_ if name != run.current]

    def _layer(self, run: "Run") -> int:
        if self.layer is not None:
            return self.layer
        return min(lowest_adapted(run.model.network), len(blocks_of(run.model.network)) - 1)

    def _sizes(self, run: "Run") -> dict[str, int]:
        """Return what a generator is built by, and the layer that it stands for."""
        width = run.model.network.get_input_embeddings().embedding_dim
        inner = max(4, min(self.width, width) // 4 * 4)
        return {
            "layer": self._layer(run), "width": width, "inner": inner, "n_slots": self.slots,
            "code_size": self.code_size, "n_layers": self.depth, "conditioned": int(self.n_kinds > 0),
        }  # fmt: skip

    def _check(self, run: "Run", task: Task) -> None:
        """Raise ConfigError where the layer isn't there, or what is kept was made otherwise; try it with two rows."""
        n_blocks, sizes = len(blocks_of(run.model.network)), self._sizes(run)
        where = f"{self.name}.layer"
        if sizes["layer"] >= n_blocks:
            way_out = f"Blocks are 0 to {n_blocks - 1}"
            raise ConfigError(describe(where, f"the model has {n_blocks} blocks", self.layer, way_out))
        kept = self.generator_.get("sizes", sizes)
        if kept != sizes:
            changed = {name: (kept[name], sizes[name]) for name in sizes if kept[name] != sizes[name]}
            way_out = "Use the settings that it was made with, or begin anew"
            raise ConfigError(describe(self.name, "what was learned has other sizes (then, now)", changed, way_out))
        features = encoded(run.model, task, range(min(2, len(task.train))), self.max_tokens)
        if self.generator_ or not features:
            return
        batch = batch_of(run, features)
        with torch.no_grad(), run.model.evaluating():
            states = hidden_states(run.model, batch, sizes["layer"])
        check_cut(run.model, batch, latents_of(run.model, batch, states), sizes["layer"])

    def _begin(self, run: "Run", latents: Latents) -> Generator:
        with seeded(seed_for(run.seed, self.name, "generator")):
            generator = _built(self._sizes(run)).to(latents.states.device)
        generator.fit_scale(latents)
        return generator

    def _generator(self, run: "Run") -> Generator | None:
        """Return the generator as it is kept; None where there is none."""
        if not self.generator_:
            return None
        if self._built is None or self._built[0] is not self.generator_:
            with seeded(0):
                generator = _built(self.generator_["sizes"])
            generator.load_state_dict(self.generator_["weights"])
            self._built = (self.generator_, generator.to(run.accelerator.device))
        return self._built[1]

    def _keep(self, generator: Generator, layer: int) -> None:
        sizes = {
            "layer": layer, "width": generator.reads.in_features, "inner": generator.inner,
            "n_slots": len(generator.slots), "code_size": generator.compress.out_features,
            "n_layers": generator.decoder.num_layers, "conditioned": int(generator.prototype is not None),
        }  # fmt: skip
        weights = {name: tensor.detach().clone() for name, tensor in generator.state_dict().items()}
        self.generator_ = {"sizes": sizes, "weights": weights}
        self._built = (self.generator_, generator)

    def _rehearsal(self, run: "Run", generator: Generator, task: Task) -> Rehearsal | None:
        """Return what draws codes of the other tasks and decodes them as the generator does now."""
        others = [mixture for name, mixture in self.mixtures_.items() if name != task.name]
        if not others:
            return None
        before = copy.deepcopy(generator)
        shape = len(generator.slots), generator.compress.out_features

        @torch.no_grad()
        def rehearse(n: int, random: torch.Generator) -> tuple[Any, ...]:
            drawn = draw(others, n, shape, self.max_tokens, random).to(run.accelerator.device)
            states, scores = before.decode(drawn.codes, drawn.lengths, drawn.prototypes)
            return drawn.codes, drawn.lengths, drawn.prototypes, states, scores.sigmoid()

        return rehearse

    def _told(
        self, run: "Run", features: Sequence[dict[str, Any]], latents: Latents, restored: Latents
    ) -> dict[str, Any]:
        layer, some = self.generator_["sizes"]["layer"], slice(COMPARED_ROWS)
        facts = {
            "layer": layer,
            "generator_bytes": sum(tensor.nbytes for tensor in self.generator_["weights"].values()),
            "task_bytes": sum(tensor.nbytes for tensor in self.mixtures_[run.current].values()),
            "error": round(relative_error(latents.states, restored.states, latents.mask), 4),
        }
        with torch.no_grad(), run.model.evaluating():
            real = answers_from(run.model, latents.pick(some), layer)[0].logits.argmax(-1)
            found = answers_from(run.model, restored.pick(some), layer)[0].logits.argmax(-1)
            facts["agreement"] = round((real == found).float().mean().item(), 4)
            if layer > lowest_adapted(run.model.network):
                whole = run.model.objective.forward(run.model.network, batch_of(run, features[some])).logits.argmax(-1)
                facts["full_agreement"] = round((real == whole).float().mean().item(), 4)
        return facts


def mean_state(latents: Latents, chosen: torch.Tensor) -> torch.Tensor:
    """Return the mean hidden state over all positions of the chosen rows, bool [n_rows]: [width]."""
    return latents.states[chosen][latents.mask[chosen]].mean(0)


def _built(sizes: dict[str, int]) -> Generator:
    own = {name: size for name, size in sizes.items() if name not in ("layer", "conditioned")}
    return Generator(**own, conditioned=bool(sizes["conditioned"]))
