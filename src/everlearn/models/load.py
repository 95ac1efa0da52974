"""Loading who learns: any Hugging Face causal LM, sequence or token classifier, or a plain module."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
)

from everlearn.errors import ConfigError, ModelError, check_choice, check_number, describe
from everlearn.models.adapters import Adapters, is_peft
from everlearn.models.causal import CausalObjective
from everlearn.models.chat import CHAT, give_template, template_text, wraps
from everlearn.models.dtypes import CHOICES, DTYPES, fast_dtype, on_gpu, train_in_float32
from everlearn.models.gguf import converted, gguf_name, gguf_of
from everlearn.models.given import Given, check_given, tokenizer_of
from everlearn.models.heads import install_head
from everlearn.models.labelled import (
    ClassifyObjective,
    LabelledObjective,
    MultiLabelObjective,
    ScoreObjective,
    TagObjective,
)
from everlearn.models.objectives import Objective, TensorObjective
from everlearn.models.plain import build_plain, is_plain
from everlearn.models.preferences import PreferenceObjective
from everlearn.models.prompts import prompts_of
from everlearn.models.quiet import quiet
from everlearn.models.soft import SOFT
from everlearn.models.special import check_together, padding_id
from everlearn.models.without import base_of
from everlearn.models.words import WordsObjective
from everlearn.seeds import seed_for
from everlearn.types import Task

POCKET = "pocket"
WORDS = "words"  # in place of a head
UNLIMITED = 2**15  # tokens in an example where neither the model (Mamba, say) nor the tokenizer has a limit
ADAPTERS = ("lora", "full", "prompt", "prefix", "lora_prompt")
AUTO = {
    "causal": AutoModelForCausalLM,
    "classify": AutoModelForSequenceClassification,
    "tag": AutoModelForTokenClassification,
}
HEADS: dict[str, type[LabelledObjective]] = {
    "classify": ClassifyObjective, "multilabel": MultiLabelObjective, "score": ScoreObjective, "tag": TagObjective,
}  # fmt: skip
NETWORK_OF_KIND = {
    **dict.fromkeys(("prompt", "preference", "text"), "causal"),
    **dict.fromkeys(("classify", "multilabel", "score"), "classify"),
    **{kind: kind for kind in ("tag", "tensor")},
}


@dataclass(frozen=True)
class AdapterConfig:
    """What is trained.

    Args:
        name: lora; full for all weights; prompt (prompt tuning), prefix (prefix tuning) or lora_prompt (both LoRA and a
            prompt) for language models that write.
        targets: of LoRA: layer names, or auto for all linear layers (of Mamba, `in_proj`).
        soft_tokens: vectors of a prompt or prefix. init_text: a prompt begins as these words, else as random tokens.
    """

    name: str = "lora"
    rank: int = 16
    alpha: float | None = None  # null: twice the rank
    dropout: float = 0.0
    targets: str | list[str] = "auto"
    soft_tokens: int = 8
    init_text: str | None = None

    def __post_init__(self) -> None:
        check_choice("model.adapter.name", self.name, ADAPTERS)
        check_number("model.adapter.rank", self.rank, low=1)
        check_number("model.adapter.soft_tokens", self.soft_tokens, low=1)
        if self.init_text is not None and "prompt" not in self.name:
            way_out = "Leave it out, or write name: prompt or lora_prompt"
            raise ConfigError(describe("model.adapter.init_text", "needs a soft prompt", self.init_text, way_out))
        check_number("model.adapter.dropout", self.dropout, low=0, high=1)
        if self.alpha is not None:
            check_number("model.adapter.alpha", self.alpha, above=0)
        if isinstance(self.targets, str) and self.targets != "auto":
            way_out = "Write auto, or a list of layer names"
            raise ConfigError(describe("model.adapter.targets", "is unknown", self.targets, way_out))


@dataclass(frozen=True)
class ModelConfig:
    """Which model, and how it is loaded.

    Args:
        name: `pocket`, `smollm2`, a local folder, a GGUF file, a hub id; `mlp`, or `package.module:function` for a
            plain module.
        head: for classification: task (a head per task), shared (one head that grows with new labels), or words: none,
            a language model writes one of the labels.
        dtype: of the loaded weights: auto, the checkpoint's on a GPU and float32 on a CPU; fast, bfloat16 where the CPU
            (AMX or AVX512-BF16) or the GPU computes in it; or one by its name. What is trained is float32: LoRA, heads
            and prompts beside weights of any dtype, and all weights of adapter full.
        quantization: 4bit or 8bit through bitsandbytes, on a GPU.
        safetensors_only: refuse checkpoints that are pickles. trust_remote_code: run code that comes with the model.
        max_length: tokens in an example, at most; null takes the model's own limit. Running text is cut into examples
            of 1024 tokens at most, which together hold all of it.
        chat: whether prompts and completions are put as turns of a conversation: always, never, or auto, where the
            tokenizer has a chat template. Rows of `messages` always are one.
        chat_template: chatml, a file with a Jinja template, or the template itself, for a tokenizer without one (or in
            place of its own). Marks such as <|im_end|> that the tokenizer lacks become tokens whose embeddings are
            trained.
        options: for plain modules: arguments of the function that builds it.
    """

    name: str = POCKET
    adapter: AdapterConfig | None = None  # null: LoRA for language models, full for plain modules
    head: str = "task"
    dtype: str = "auto"
    attn_implementation: str | None = None
    quantization: str | None = None
    trust_remote_code: bool = False
    safetensors_only: bool = True
    revision: str | None = None
    max_length: int | None = None
    chat: str = "auto"
    chat_template: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("model.head", self.head, ("task", "shared", WORDS))
        check_choice("model.dtype", self.dtype, CHOICES)
        if self.adapter is not None and self.adapter.name == "full" and self.dtype in ("bfloat16", "float16"):
            way_out = "Write auto, and learner.precision: bf16 to compute in it; or use lora"
            what = "small changes of weights that are trained would be lost in it"
            raise ConfigError(describe("model.dtype", what, self.dtype, way_out))
        if self.quantization is not None:
            check_choice("model.quantization", self.quantization, ("4bit", "8bit"))
            if self.adapter is not None and self.adapter.name == "full":
                way_out = "Use lora, or leave model.quantization out"
                raise ConfigError(describe("model.adapter.name", "quantized weights can't be trained", "full", way_out))
        if self.max_length is not None:
            check_number("model.max_length", self.max_length, low=4)
        check_choice("model.chat", self.chat, CHAT)


@dataclass
class Model:
    """Who learns: the network behind its adapters, and how rows become its loss.

    Attributes:
        kind: causal, classify, tag or tensor (a plain module).
    """

    name: str
    kind: str
    adapters: Adapters
    objective: Objective
    tokenizer: Any = None

    @property
    def traits(self) -> tuple[str, ...]:
        """What a method may be unsuited for: the kind; lora, prompt or full; soft_prompt; new_tokens (trained beside a
        LoRA); fresh (weights that its files lack are trained beside it); task_head or shared_head; numbers,
        several_labels or preferences (that it answers with)."""  # fmt: skip
        heads = () if self.kind == "causal" else (f"{self.adapters.head_mode}_head",)
        soft = () if prompts_of(self.network) is None else ("soft_prompt",)
        tokens = ("new_tokens",) if self.adapters.new_tokens else ()
        fresh = ("fresh",) if self.adapters.fresh else ()
        return (self.kind, self.adapters.mode, *soft, *tokens, *fresh, *heads, *self.objective.traits)

    @property
    def network(self) -> nn.Module:
        """The module to call."""
        return self.adapters.network

    def takes(self, task: Task) -> bool:
        """Tell whether the network can learn a task of this kind, and answers in its way."""
        in_words = task.kind == "classify" and isinstance(self.objective, WordsObjective)
        if NETWORK_OF_KIND[task.kind] != self.kind:
            return in_words
        if self.kind == "causal":
            return isinstance(self.objective, PreferenceObjective) == (task.kind == "preference")
        return task.kind not in HEADS or isinstance(self.objective, HEADS[task.kind])

    def train(self) -> None:
        """Put the network into training mode; what its owner froze in evaluation mode (a BatchNorm, say) stays so."""
        self.adapters.train()

    def show_batches(self) -> None:
        """Let soft prompts that choose by the question see each batch, whichever methods are in use."""
        prompts = prompts_of(self.network)
        if prompts is not None and isinstance(self.objective, CausalObjective):
            self.objective.before_forward = prompts.see

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Put the network into evaluation mode; each module's own training flag comes back afterwards."""
        training = [module for module in self.network.modules() if module.training]
        for module in training:  # the flags alone: eval(), as does nn.Module's own setter, takes several times as long
            vars(module)["training"] = False
        try:
            yield
        finally:
            for module in training:
                vars(module)["training"] = True


def load_model(
    config: ModelConfig | Given | nn.Module, tasks: Sequence[Task], seed: int = 0, device: str = "auto"
) -> Model:
    """Load the model that fits the kind of the tasks, with its adapter in place.

    Args:
        config: how to load it; or a model that is loaded, which is trained in place: a plain module whole, a model of
            transformers as one loaded by its name, a peft model's own adapter. What is frozen stays so.
        tasks: what it will learn: their kind chooses the architecture, a plain one is sized by their tensors.
        seed: for the adapter's and heads' initial weights.
        device: where it will be used (auto, cpu or cuda), for dtypes that depend on it.

    Raises:
        ModelError: if it can't be found or loaded. ConfigError: if the options don't fit it.
    """
    kind = network_kind(tasks, config.config.head if isinstance(config, Given) else _head_of(config))
    given = Given(config, None, ModelConfig(name="module")) if isinstance(config, nn.Module) else None
    given = config if isinstance(config, Given) else given
    if given is not None:
        config = given.config
    if kind == "tensor":
        network = given.network if given is not None else build_plain(
            config.name, config.options, tasks, config.head, seed_for(seed, "model")
        )  # fmt: skip
        return _plain(network, config, tasks, seed)
    if given is not None:
        check_given(given, kind)
    path = config.name if given is not None else path_of(config.name)
    tokenizer = _tokenizer(config, path) if given is None else tokenizer_of(given)
    auto, missing, marks = AUTO[kind], [], []
    if kind == "causal" and config.chat_template is not None:
        marks = give_template(tokenizer, config.chat_template)
    if given is None:
        network, missing = _network(auto, with_dtype(config, device), path, seed)
    else:
        network = given.network
    new_tokens = tokenizer.convert_tokens_to_ids(marks)
    _make_room(network, new_tokens, seed)
    check_together(config.name, tokenizer, network.get_input_embeddings().num_embeddings)
    max_length = _max_length(config, network, tokenizer)
    if kind == "causal":
        adapters = Adapters(network)
        made: type[CausalObjective] = WordsObjective if config.head == WORDS else CausalObjective
        made = PreferenceObjective if any(task.kind == "preference" for task in tasks) else made
        objective: Objective = _causal(made, config, network, tokenizer, max_length)
    else:
        if kind == "classify":  # by it, classifiers of the Llama kind find a text's last token
            network.config.get_text_config().pad_token_id = padding_id(tokenizer)
        head, _ = install_head(network, network.config.num_labels)
        fresh = [name for name in missing if name in dict(network.named_parameters())]
        train_in_float32(network, fresh)
        adapters = Adapters(network, head, config.head, fresh)
        objective = HEADS[tasks[0].kind](tokenizer, adapters, max_length)
    own = "full" if is_peft(network) else "lora"  # of a peft model its own adapter: all that it left trainable
    _add_adapter(adapters, config.adapter or AdapterConfig(own), kind, path, seed, new_tokens)
    model = Model(config.name, kind, adapters, objective, tokenizer)
    if isinstance(objective, PreferenceObjective):
        if not {operation for operation, _ in adapters.log} & {"lora", "soft_prompt", "prefix"}:
            way_out = "Use lora, prompt or prefix: without it the model answers as its base"
            what = "preferences are learned beside what the base prefers, and no base would be left"
            raise ConfigError(describe("model.adapter.name", what, adapters.mode, way_out))
        objective.base = partial(base_of, model)
    return model


def _causal(
    made: type[CausalObjective], config: ModelConfig, network: nn.Module, tokenizer: Any, max_length: int
) -> CausalObjective:
    settings = network.generation_config
    ends = settings.eos_token_id if isinstance(settings.eos_token_id, list) else [settings.eos_token_id]
    stop_ids = [token for token in ends if token is not None]
    objective = made(tokenizer, max_length, chat=wraps(config.chat, tokenizer), stop_ids=stop_ids)
    if set(objective.stop_ids) - set(stop_ids):  # so that an answer ends there wherever the model is served
        settings.eos_token_id = objective.stop_ids
    return objective


def with_template(config: ModelConfig) -> ModelConfig:
    """Return the config with the text of the chat template in place of its file, which may change or move.

    Raises:
        ConfigError: if the file can't be read.
    """
    if config.chat_template is None:
        return config
    return replace(config, chat_template=template_text(config.chat_template))


def with_dtype(config: ModelConfig, device: str, tell: Callable[[str], None] | None = None) -> ModelConfig:
    """Return the config with the dtype that `auto` or `fast` stands for on a device (auto, cpu or cuda).

    Args:
        tell: is told of any other than float32.
    Raises:
        ModelError: if it is the checkpoint's, and that can't be found.
    """
    if config.dtype in DTYPES or is_plain(config.name):
        return config
    if config.adapter is not None and config.adapter.name == "full":
        chosen = "float32"
    elif config.dtype == "fast":
        chosen = fast_dtype(device)
    else:
        chosen = _dtype_of_checkpoint(config) if on_gpu(device) else "float32"
    if tell is not None and chosen != "float32":
        tell(f"Weights are loaded as {chosen} (model.dtype: {config.dtype}).")
    return replace(config, dtype=chosen)


def _dtype_of_checkpoint(config: ModelConfig) -> str:
    """Return the name of the checkpoint's dtype; float32 where that is unknown, or none that a model computes in."""
    settings = _load(config.name, AutoConfig.from_pretrained, path_of(config.name), **_source(config))
    name = str(settings.dtype).removeprefix("torch.")
    return name if name in DTYPES else "float32"


def load_tokenizer(config: ModelConfig) -> Any:
    """Load the tokenizer of a language model as it is, without the chat template that the config may bring.

    Raises:
        ModelError: if there is none, or it can't be loaded.
    """
    return _tokenizer(config, path_of(config.name))


def _tokenizer(config: ModelConfig, path: str) -> Any:
    tokenizer = _load(config.name, AutoTokenizer.from_pretrained, path, **_source(config))
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # what transformers makes where there are no files of one
        way_out = "Save the model's tokenizer beside its weights"
        raise ModelError(describe(f"model {config.name!r}", "has no tokenizer", path, way_out))
    return tokenizer


def network_kind(tasks: Sequence[Task], head: str = "task") -> str:
    """Return the kind of network that all the tasks need: causal, classify, tag or tensor.

    Args:
        head: as `ModelConfig` has it: words are written by a causal one.
    Raises:
        ConfigError: if they need different ones, or answer in different ways.
    """
    writing = ("text", "classify") if head == WORDS else ("text",)
    answers = {"prompt" if task.kind in writing else task.kind: task.name for task in tasks}
    kinds = {NETWORK_OF_KIND[kind]: name for kind, name in answers.items()}
    if head == WORDS and set(kinds) != {"causal"}:
        way_out = "Write task or shared, or give rows of text and label"
        raise ConfigError(describe("model.head", "label words are for rows with one label", answers, way_out))
    if len(kinds) != 1 or len(answers) > 1:
        way_out = "Put tasks for different kinds of model into different streams"
        got = kinds if len(kinds) > 1 else answers
        raise ConfigError(describe("stream", "its tasks need different kinds of model", got, way_out))
    return next(iter(kinds))


def _head_of(config: ModelConfig | nn.Module) -> str:
    return config.head if isinstance(config, ModelConfig) else "task"


def _plain(network: nn.Module, config: ModelConfig, tasks: Sequence[Task], seed: int) -> Model:
    adapters = Adapters(network, None, config.head)
    _add_adapter(adapters, config.adapter or AdapterConfig(name="full"), "tensor", "", seed)
    return Model(config.name, "tensor", adapters, TensorObjective(adapters))


def _add_adapter(
    adapters: Adapters, config: AdapterConfig, kind: str, path: str, seed: int, new_tokens: Sequence[int] = ()
) -> None:
    if new_tokens and config.name not in ("lora", "full"):
        way_out = "Use lora or full, which train their embeddings"
        what = "can't train the tokens that model.chat_template adds"
        raise ConfigError(describe("model.adapter.name", what, config.name, way_out))
    if config.name in SOFT and kind != "causal":
        way_out = "Use lora or full; the strategies progressive_prompts and l2p bring prompts to classifiers"
        raise ConfigError(describe("model.adapter.name", "is for language models that write", config.name, way_out))
    if config.name == "full":
        adapters.do("full")
    if config.name in ("lora", "lora_prompt"):
        adapters.do(
            "lora", rank=config.rank, alpha=config.alpha or 2 * config.rank, dropout=config.dropout,
            targets=config.targets, seed=seed, task_type="CAUSAL_LM" if kind == "causal" else None,
            **({"new_tokens": list(new_tokens)} if new_tokens else {}),
        )  # fmt: skip
    if config.name in ("prompt", "lora_prompt"):
        adapters.do("soft_prompt", length=config.soft_tokens, text=config.init_text, source=path, seed=seed)
    if config.name == "prefix":
        adapters.do("prefix", length=config.soft_tokens, seed=seed)


def path_of(name: str) -> str:
    """Return the folder or hub id that transformers loads for a model's name; a GGUF file is converted first.

    Raises:
        ModelError: if a GGUF file is missing or can't be read. StateError: if it can't be converted into the cache.
    """
    if name == POCKET:
        return str(resources.files("everlearn.models") / "pocket")
    file = gguf_of(name)
    return name if file is None else str(converted(file))


def _source(config: ModelConfig) -> dict[str, Any]:
    source: dict[str, Any] = {"trust_remote_code": config.trust_remote_code}
    if config.revision is not None:
        source["revision"] = config.revision
    return source


def _network(auto: Any, config: ModelConfig, path: str, seed: int) -> tuple[nn.Module, list[str]]:
    """Load the weights; return them with the names of parameters that the checkpoint didn't hold (seeded)."""
    options = {
        **_source(config),
        "dtype": vars(torch)[config.dtype],
        "use_safetensors": config.safetensors_only or None,
    }
    if config.attn_implementation is not None:
        options["attn_implementation"] = config.attn_implementation
    if config.quantization is not None:
        options["quantization_config"] = _quantization(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(seed, "missing weights"))
        network, info = _load(config.name, auto.from_pretrained, path, output_loading_info=True, **options)
    if gguf_of(config.name) is not None:  # the base that an adapter names: the folder in the cache is no one else's
        network.name_or_path = network.config.name_or_path = gguf_name(config.name)
    return network, sorted(info["missing_keys"])


def _quantization(config: ModelConfig) -> BitsAndBytesConfig:
    if not torch.cuda.is_available():
        way_out = "Leave model.quantization out, or run where there is a GPU"
        raise ModelError(describe("model.quantization", "bitsandbytes needs a GPU", config.quantization, way_out))
    if config.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)


def _load(name: str, loader: Callable[..., Any], path: str, **options: Any) -> Any:
    """Call a transformers loader; turn its errors into one sentence."""
    try:
        with quiet():
            return loader(path, **options)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        known = (
            "A folder with config.json and safetensors, a GGUF file, a hub id (needs a network; HF_TOKEN for a gated "
            "one), smollm2, or pocket"
        )
        if Path(path).exists():
            known = "See the reason; a checkpoint of pickles needs model.safetensors_only: false"
        raise ModelError(describe(f"model {name!r}", f"can't be loaded ({reason})", path, known)) from error


def _make_room(network: nn.Module, new_tokens: list[int], seed: int) -> None:
    """Give new tokens embeddings, drawn like those that are there."""
    n_needed = max(new_tokens, default=-1) + 1
    if n_needed <= network.get_input_embeddings().num_embeddings:
        return
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(seed_for(seed, "new tokens"))
        network.resize_token_embeddings(n_needed)


def _max_length(config: ModelConfig, network: nn.Module, tokenizer: Any) -> int:
    sizes = network.config.get_text_config().to_dict()
    own = next((sizes[name] for name in ("max_position_embeddings", "n_positions") if sizes.get(name)), UNLIMITED)
    own = min(own, tokenizer.model_max_length)  # RoBERTa has room for two positions more than it can be given
    adapter = config.adapter or AdapterConfig()
    if adapter.name in SOFT:
        own -= adapter.soft_tokens
    if config.max_length is not None and config.max_length > own:
        raise ConfigError(
            describe("model.max_length", f"exceeds the model's limit of {own}", config.max_length, "Lower it")
        )
    if own < 4:
        way_out = "Lower model.adapter.soft_tokens"
        raise ConfigError(
            describe("model.adapter.soft_tokens", "leave no room for a text", adapter.soft_tokens, way_out)
        )
    return config.max_length or own
