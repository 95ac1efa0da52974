"""Let a causal LM write text by itself, before it is taught anything else: what it knew, as text to measure it on.

python examples/write_stories.py MODEL FOLDER      # writes FOLDER/train.jsonl and FOLDER/test.jsonl, column text
"""

import argparse
import json
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def write(model_name: str, n: int, n_tokens: int, seed: int) -> list[str]:
    """Return `n` different texts of at most `n_tokens` tokens, sampled at temperature 1."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(model_name)
    model = AutoModelForCausalLM.from_pretrained(model_name)
    start = torch.full((100, 1), tokenizer.bos_token_id)
    mask = torch.ones_like(start)
    texts: dict[str, None] = {}
    while len(texts) < n:
        ids = model.generate(
            start, attention_mask=mask, do_sample=True, max_new_tokens=n_tokens, pad_token_id=tokenizer.eos_token_id
        )
        texts.update(dict.fromkeys(text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)))
        texts.pop("", None)
    return list(texts)[:n]


def main() -> None:
    """Write the two files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--n-train", type=int, default=250)
    parser.add_argument("--n-test", type=int, default=100)
    parser.add_argument("--n-tokens", type=int, default=160)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    n_train, n_test = arguments.n_train, arguments.n_test
    texts = write(arguments.model, n_train + n_test, arguments.n_tokens, arguments.seed)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name, part in (("train", texts[:n_train]), ("test", texts[n_train:])):
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in part]
        (arguments.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
