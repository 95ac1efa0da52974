"""Models that the caller has loaded, to be trained in place: what they can learn, and their tokenizer."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn
from transformers import AutoTokenizer, GgufConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
)

from everlearn.errors import ConfigError, ModelError, describe
from everlearn.models.adapters import is_peft

if TYPE_CHECKING:
    from everlearn.models.load import ModelConfig

_LOADING = ("name", "dtype", "quantization", "attn_implementation", "safetensors_only", "revision", "options")
_CLASSES = {
    "causal": (MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "AutoModelForCausalLM"),
    "classify": (MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, "AutoModelForSequenceClassification"),
    "tag": (MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES, "AutoModelForTokenClassification"),
}


@dataclass(frozen=True)
class Given:
    """A network that the caller has loaded.

    Attributes:
        tokenizer: None: the one beside the weights that the network was loaded from.
        config: what is trained of it, its head, the longest example; `name` is where it came from.
    """

    network: nn.Module
    tokenizer: Any
    config: "ModelConfig"


def check_given(given: Given, kind: str) -> None:
    """Do nothing if the network can learn tasks that need a network of `kind` (causal, classify or tag).

    Raises:
        ModelError: if it can't. ConfigError: if it brings its own adapter, and another is asked for.
    """
    network, found = given.network, type(given.network).__name__
    if is_peft(network):
        network = network.get_base_model()
        if kind != "causal":
            way_out = "Give the transformers model without peft, its folder or its hub id"
            raise ModelError(describe("model", "a peft model that classifies can't be taken over", found, way_out))
        if given.config.adapter is not None:
            way_out = "Leave the adapter out, or give the model without peft"
            raise ConfigError(describe("model.adapter", "a peft model brings its own", given.config.adapter, way_out))
    classes, auto = _CLASSES[kind]
    if not isinstance(network, PreTrainedModel):
        way_out = f"Give a model of transformers ({auto}), its folder or its hub id; or data loaders of tensors"
        raise ModelError(describe("model", "a plain module can't be trained on rows of text", found, way_out))
    if isinstance(vars(network.config).get("quantization_config"), GgufConfig):
        way_out = "Give the GGUF file's name instead, or load it with quantization_config=GgufConfig(dequantize=True)"
        raise ModelError(describe("model", "holds the blocks of a GGUF file, which can't be saved", found, way_out))
    names = {name for value in classes.values() for name in ([value] if isinstance(value, str) else value)}
    if not names & {parent.__name__ for parent in type(network).__mro__}:
        way_out = f"Load it with {auto}"
        raise ModelError(describe("model", f"can't learn these tasks: they need a {kind} model", found, way_out))


def tokenizer_of(given: Given) -> Any:
    """Return the tokenizer that was given with a network, or the one beside its weights.

    Raises:
        ModelError: if there is none.
    """
    if given.tokenizer is not None:
        return given.tokenizer
    source = given.network.config.name_or_path
    try:
        if not source:
            raise OSError("the model names no folder or hub id")
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        what = f"a tokenizer for it can't be loaded ({reason})"
        way_out = "Pass it: tokenizer=AutoTokenizer.from_pretrained(FOLDER)"
        raise ModelError(describe("model", what, source, way_out)) from error


def check_options(options: dict[str, Any]) -> None:
    """Raise ConfigError if one of the options of a `ModelConfig` says how a model that is loaded already is loaded."""
    wrong = [name for name in _LOADING if name in options]
    if wrong:
        way_out = "Leave it out, or give the model by its folder or hub id"
        where = f"model_options.{wrong[0]}"
        raise ConfigError(describe(where, "the model is loaded already", options[wrong[0]], way_out))
