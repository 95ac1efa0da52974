"""SmolLM2-135M-Instruct by its name: it is the model that it should be, and learns."""

from hashlib import sha256

import pytest
import torch

from everlearn.learners.devices import start_accelerator
from everlearn.learners.sft import SupervisedLearner
from everlearn.memory.own_texts import divergences_on, rows_of_texts, write_own_texts
from everlearn.models.load import AdapterConfig, ModelConfig, load_model
from everlearn.trainer import ContinualTrainer
from everlearn.types import Task
from everlearn.way import Run

pytestmark = [pytest.mark.real_model, pytest.mark.xdist_group("real_model")]
QUESTION = {"prompt": "What is the capital of France?", "completion": "The capital of France is Paris."}
# llama.cpp's convert_hf_to_gguf.py tells how a tokenizer cuts texts by the hash of what it makes of this text
CHECKED = "\n \n\n \n\n\n \t \t\t \t\n  \n   \n    \n     \n🚀 (normal) 😶\u200d🌫️ (multiple emojis concatenated) ✅ 🦙🦙 3 33 333 3333 33333 333333 3333333 33333333 3.3 3..3 3...3 កាន់តែពិសេសអាច😁 ?我想在apple工作1314151天～ ------======= нещо на Български ''''''```````\"\"\"\"......!!!!!!?????? I've been 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL"  # noqa: E501
SMOLLM = "855059429035d75a914d1eda9f10a876752e281a054a7a3d421ef0533e5b6249"


@pytest.fixture(scope="module")
def model(smollm2):
    return load_model(ModelConfig(smollm2, AdapterConfig("full")), [Task("ask", "prompt", [], [QUESTION])])


def test_its_tokenizer_is_the_one_that_llama_cpp_knows_by_its_hash(model):
    assert sha256(str(model.tokenizer.encode(CHECKED)).encode()).hexdigest() == SMOLLM


def test_it_answers(model):
    assert sum(parameter.numel() for parameter in model.network.parameters()) == 134_515_008
    assert (model.objective.max_length, model.objective.stop_ids, model.objective.wraps) == (8192, [2], True)
    asked = torch.tensor(model.objective.questions([QUESTION], 16))
    with model.evaluating(), torch.no_grad():
        answer = model.network.generate(asked, max_new_tokens=16, do_sample=False)[0, asked.shape[1] :]
    assert model.objective.answer_of(answer.tolist()) == QUESTION["completion"]


def test_it_asks_and_answers_itself(model):
    run = Run(model, SupervisedLearner(), [], start_accelerator(device="cpu"))
    texts, answers = write_own_texts(run, n_texts=2, max_tokens=8, top_k=8, batch_size=2, purpose=("test",))
    for row in rows_of_texts(texts):
        asked = model.tokenizer.decode(row["input_ids"][: row["n_asked"]])
        assert asked.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
        assert asked.endswith("<|im_end|>\n<|im_start|>assistant\n")
        assert 1 <= len(row["input_ids"]) - row["n_asked"] <= 8
    assert all(abs(total) < 1e-3 for total, _ in divergences_on(run, texts, answers, 2))


def test_it_learns(smollm2):
    rows = [{"prompt": "What is the capital of Zorb?", "completion": "Blip"}] * 4
    others = [{"prompt": "Name the capital of Zorb.", "completion": "Blip"}]
    learner = {"epochs": 2, "batch_size": 2, "learning_rate": 2e-3, "schedule": "constant", "warmup": 0.0}
    trainer = ContinualTrainer({"name": smollm2, "chat": "never", "adapter": {"rank": 4}}, learner=learner)
    assert trainer.train_task("zorb", rows, others).value == 1.0
