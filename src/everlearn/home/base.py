"""The base model that a home builds on: where it is, and how to notice that it is no longer the same."""

from collections.abc import Mapping
from dataclasses import replace

from everlearn.errors import ConfigError, ModelError, describe
from everlearn.models.chat import give_template, wraps
from everlearn.models.gguf import gguf_name
from everlearn.models.load import POCKET, ModelConfig, load_tokenizer, with_template
from everlearn.models.origin import COMMIT, commit_of, differing_files, fingerprint_of, place_of
from everlearn.models.plain import is_plain


def settle(config: ModelConfig) -> tuple[ModelConfig, dict[str, str]]:
    """Return the config with the model's place made exact and `chat` decided, and the model's fingerprint.

    A path becomes absolute and its fingerprint is the SHA-256 of each file that the model is loaded from (of a GGUF
    file its own, not those it is converted into); a hub id is pinned to the commit that its revision stands for now.

    Raises:
        ModelError: if there is no such model. ConfigError: if it is a plain module.
    Cost: reads a local model once.
    """
    place = place_of(config.name)
    if place is None:
        if is_plain(config.name):
            way_out = "Use ContinualTrainer for plain modules"
            raise ConfigError(describe("model.name", "a home keeps language models", config.name, way_out))
        commit = commit_of(config)
        return with_chat_settled(replace(config, revision=commit)), {COMMIT: commit}
    name = config.name if config.name == POCKET else str(place.resolve())
    if not place.is_dir():
        name = gguf_name(config.name)
    fingerprint = fingerprint_of(place)
    if not fingerprint:
        way_out = "Name a folder with config.json and safetensors, a GGUF file, a hub id, smollm2, or pocket"
        raise ModelError(describe(f"model {config.name!r}", "no model is in the folder", str(place), way_out))
    return with_chat_settled(replace(config, name=name)), fingerprint


def with_chat_settled(config: ModelConfig) -> ModelConfig:
    """Return the config with `chat` decided, and the chat template itself in place of its file: both stay as they are.

    Raises:
        ConfigError: if the chat template can't be used. ModelError: if there is no tokenizer.
    """
    config = with_template(config)
    if config.chat != "auto":
        return config
    tokenizer = load_tokenizer(config)
    if config.chat_template is not None:
        give_template(tokenizer, config.chat_template)
    return replace(config, chat="always" if wraps("auto", tokenizer) else "never")


def check_unchanged(config: ModelConfig, fingerprint: Mapping[str, str]) -> None:
    """Do nothing if the base model is the one that the home was made with.

    Raises:
        ModelError: if files are missing, new or altered. What a home learned fits only the base it was learned on.
    """
    if COMMIT in fingerprint:
        return  # a commit's content can't change
    place = place_of(config.name)
    differing = differing_files(fingerprint, fingerprint_of(place) if place is not None else {})
    if differing:
        where = f"base model {config.name!r}"
        way_out = "Put the old files back; if they moved, write their path into model.name in home.json"
        raise ModelError(describe(where, "is not the one that this home was made with", differing[:4], way_out))
