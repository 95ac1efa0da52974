import torch

from everlearn.models.pocket.network import build_network, build_optimizers


def test_weights_depend_on_the_seed_alone(tiny, tiny_tokenizer, change):
    before = torch.get_rng_state()
    first, again = build_network(tiny, tiny_tokenizer), build_network(tiny, tiny_tokenizer)
    other = build_network(change(tiny, seed=1), tiny_tokenizer)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.model.embed_tokens.weight, other.model.embed_tokens.weight)


def test_each_weight_is_trained_by_one_optimizer_in_the_opening_and_by_one_after_it(tiny, tiny_tokenizer):
    model = build_network(tiny, tiny_tokenizer)
    outer, adamw, muon = build_optimizers(tiny, model)
    for inner in (adamw, muon):
        trained = [id(p) for optimizer in (outer, inner) for group in optimizer.param_groups for p in group["params"]]
        assert sorted(trained) == sorted(id(p) for p in model.parameters())


def test_a_token_sees_only_those_before_it(tiny, tiny_tokenizer):
    model = build_network(tiny, tiny_tokenizer).eval()
    ids = torch.arange(10, 30).reshape(1, 20)
    changed = ids.clone()
    changed[0, 12:] = 7
    with torch.no_grad():
        before, after = model(input_ids=ids).logits, model(input_ids=changed).logits
    assert torch.equal(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])
