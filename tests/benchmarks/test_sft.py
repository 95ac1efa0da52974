import pytest
import sft
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

ARTICLES = [{"text": f"Title: T{i}\nText: Word number {i}.", "label_name": "Sports"} for i in range(4)]


def test_the_loop_by_hand_has_the_loss_of_the_whole_logits(llama):
    network = AutoModelForCausalLM.from_pretrained(llama)
    rows = [
        {"input_ids": [1, 5, 6, 7, 8, 2], "completion_mask": [0, 0, 0, 0, 1, 1]},
        {"input_ids": [1, 9, 10, 2], "completion_mask": [0, 0, 1, 1]},
    ]
    ids, wanted, mask = sft.padded(rows)
    loss = sft.loss_at_targets(network, ids, wanted, mask)
    logits = network(input_ids=ids, attention_mask=mask).logits[:, :-1]
    expected = F.cross_entropy(logits[wanted[:, 1:]], ids[:, 1:][wanted[:, 1:]])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_rows_of_one_length_need_no_mask():
    ids, wanted, mask = sft.padded([{"input_ids": [1, 4], "completion_mask": [0, 1]}] * 2)
    assert mask.all()
    assert ids.tolist() == [[1, 4], [1, 4]]
    assert wanted.tolist() == [[False, True], [False, True]]


def test_rows_are_made_of_articles():
    (first, *_) = sft.news(ARTICLES)
    assert first == {"prompt": "Title: T0\nText: Word number 0.\nTopic:", "completion": " Sports"}
    (dialogue,) = sft.dialogues(ARTICLES)
    assert dialogue["completion"] == " Word number 1. Word number 2."
    assert "Assistant: Word number 0.\nUser:" in dialogue["prompt"]


def compared(losses):
    plan = {"block": 2, "batch_size": 8, "data": "news"}
    taken = {"ours": [1.0, 1.0, 1.0], "by_hand": [1.0, 1.1, 0.9], "trl": [2.0, 1.8, 1.5]}
    memory = {"ours": 700, "by_hand": 650, "trl": 1000}
    ends = {side: {"losses": losses[side], "peak_memory_bytes": memory[side]} for side in taken}
    found = sft.compare(plan, taken, ends)
    sft.judge(found, "news")
    return found


def test_ratios_are_over_blocks_in_turns():
    found = compared({side: [2.0, 1.0] for side in ("ours", "by_hand", "trl")})
    assert found["rows_per_s"] == {"ours": 16.0, "by_hand": 16.0, "trl": pytest.approx(16 / 1.8)}
    assert found["times_as_fast_as"]["trl"]["median"] == pytest.approx(1.8)
    assert found["times_as_fast_as"]["trl"]["met"]
    assert found["times_as_fast_as"]["by_hand"]["met"]
    assert found["memory_of_trl"] == {"share": 0.7, "bar": 0.8, "met": True}


@pytest.mark.parametrize("other", [[2.3, 1.0], [2.0, 1.2]])
def test_sides_that_did_other_work_are_refused(other):
    with pytest.raises(SystemExit, match="the comparison is void"):
        compared({"ours": [2.0, 1.0], "by_hand": [2.0, 1.0], "trl": other})
