"""The pocket model's tokenizer: byte-level BPE with single digits, trained on the corpus."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from everlearn.models.pocket.corpus import document, text_of, words

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"


def train_tokenizer(vocabulary_size: int, n_documents: int, seed: int = 0) -> PreTrainedTokenizerFast:
    """Return a tokenizer learned from the first documents of the corpus; it adds <bos>, never <eos>.

    Any text encodes (bytes are the alphabet); each digit is a token, so numbers are spelled alike everywhere. The
    words of `words.py` are one token each, where the vocabulary has the room.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [text_of(document(seed, index, split="tokenizer")) for index in range(n_documents)]
    common = sorted({word for group in vars(words).values() if isinstance(group, list | tuple) for word in group})
    cheap = [f"{word}\n {word}" for word in common] * (n_documents // 100)
    tokenizer.train_from_iterator([*texts, *cheap], trainer)
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A", special_tokens=[(BOS, bos)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, padding_side="left",
        model_max_length=512, clean_up_tokenization_spaces=False,
    )  # fmt: skip
