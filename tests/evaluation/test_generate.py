import torch

from everlearn.evaluation.generate import generate_greedily
from support.runs import make_bench
from support.tasks import prompt_task


def greedy_by_hand(model, prompt, n):
    ids = model.objective.prompt_ids([prompt], n)[0]
    answer = []
    for _ in range(n):
        logits = model.network(input_ids=torch.tensor([ids + answer])).logits[0, -1]
        answer.append(int(logits.argmax()))
        if answer[-1] == model.tokenizer.eos_token_id:
            break
    return model.tokenizer.decode(answer, skip_special_tokens=True)


def test_a_batch_of_unequal_prompts_answers_as_each_alone_token_by_token(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    prompts = [row["prompt"] for row in prompt_task(0).train[:5]] + ["x" * 30]
    state = torch.get_rng_state()
    with torch.no_grad(), model.evaluating():
        found = generate_greedily(model.network, model.objective, prompts, 6, torch.device("cpu"))
        wanted = [greedy_by_hand(model, prompt, 6) for prompt in prompts]
    assert found == wanted
    assert torch.equal(torch.get_rng_state(), state)


def test_a_prompt_that_does_not_fit_loses_its_start(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    with torch.no_grad(), model.evaluating():
        long = generate_greedily(model.network, model.objective, ["q" * 90 + "end"], 4, torch.device("cpu"))
        cut = model.objective.prompt_ids(["q" * 90 + "end"], 4)[0]
    assert len(cut) == 60
    assert model.tokenizer.decode(cut).endswith("end")
    assert len(long) == 1
