import torch

from everlearn.evaluation.generate import draw_answers, generate_greedily
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
    return model.objective.answer_of(answer)


def test_a_batch_of_unequal_prompts_answers_as_each_alone_token_by_token(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    prompts = [row["prompt"] for row in prompt_task(0).train[:5]] + ["x" * 30]
    ids = model.objective.prompt_ids(prompts, 6)
    state = torch.get_rng_state()
    with torch.no_grad(), model.evaluating():
        found = generate_greedily(model.network, model.objective, ids, 6, torch.device("cpu"))
        wanted = [greedy_by_hand(model, prompt, 6) for prompt in prompts]
    assert found == wanted
    assert torch.equal(torch.get_rng_state(), state)


def test_a_prompt_that_does_not_fit_loses_its_start(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    (cut,) = model.objective.prompt_ids(["q" * 90 + "end"], 4)
    with torch.no_grad(), model.evaluating():
        long = generate_greedily(model.network, model.objective, [cut], 4, torch.device("cpu"))
    assert len(cut) == 60
    assert model.tokenizer.decode(cut).endswith("end")
    assert len(long) == 1


@torch.no_grad()
def test_answers_are_drawn_by_their_own_numbers_alone(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    prompts = model.objective.prompt_ids(["1+1=", "x" * 20, "?"], 6)
    uniforms = torch.rand(3, 6, generator=torch.Generator().manual_seed(0))
    state = torch.get_rng_state()
    with model.evaluating():
        together = draw_answers(model.network, model.objective, prompts, uniforms, torch.device("cpu"))
        for i, prompt in enumerate(prompts):
            alone = draw_answers(model.network, model.objective, [prompt], uniforms[[i]], torch.device("cpu"))
            assert alone == together[i : i + 1]
    assert torch.equal(torch.get_rng_state(), state)


@torch.no_grad()
def test_tokens_are_drawn_as_often_as_the_model_says(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    n, (prompt,) = 2000, model.objective.prompt_ids(["1+1="], 1)
    uniforms = torch.rand(n, 1, generator=torch.Generator().manual_seed(0))
    with model.evaluating():
        drawn = draw_answers(model.network, model.objective, [prompt] * n, uniforms, torch.device("cpu"))
        p = model.network(torch.tensor([prompt])).logits[0, -1].softmax(-1)
    counts = torch.bincount(torch.tensor([answer[0] for answer in drawn]), minlength=len(p))
    often = p * n > 5
    chi_square = ((counts - p * n).square() / (p * n))[often].sum().item()
    assert often.sum() > 20
    assert chi_square < often.sum() + 4 * (2 * often.sum()) ** 0.5


@torch.no_grad()
def test_an_answer_ends_with_its_end(llama, bert):
    model = make_bench("causal_lora", llama, bert).run().model
    (prompt,) = model.objective.prompt_ids(["1+1="], 5)
    with model.evaluating():
        p = model.network(torch.tensor([prompt])).logits[0, -1].double().softmax(-1).cumsum(0)
        end = model.tokenizer.eos_token_id
        inside = (p[end - 1] + p[end]) / 2
        uniforms = torch.full((1, 5), float(inside), dtype=torch.float64)
        assert draw_answers(model.network, model.objective, [prompt], uniforms, torch.device("cpu")) == [[end]]
