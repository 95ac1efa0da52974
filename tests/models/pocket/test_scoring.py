from everlearn.models.pocket.corpus import FAMILIES
from everlearn.models.pocket.network import build_network
from everlearn.models.pocket.scoring import complete, score_families


def test_completions_keep_the_order_of_the_prompts(tiny, tiny_tokenizer):
    model = build_network(tiny, tiny_tokenizer)
    prompts = ["a long prompt about many things and people\nA:", "1 + 1", "x" * 40, "2"]
    together = complete(model, tiny_tokenizer, prompts, 3)
    assert together == [complete(model, tiny_tokenizer, [prompt], 3)[0] for prompt in prompts]
    assert model.training


def test_an_untrained_model_scores_next_to_nothing_on_every_family(tiny, tiny_tokenizer):
    scores = score_families(build_network(tiny, tiny_tokenizer), tiny_tokenizer, 4)
    assert list(scores) == list(FAMILIES)
    assert sum(scores.values()) < 1


def test_a_model_that_knows_the_answers_scores_one(monkeypatch, tiny, tiny_tokenizer):
    from random import Random

    from everlearn.models.pocket import scoring
    from everlearn.models.pocket.corpus import sample
    from everlearn.seeds import seed_for

    known = dict(
        sample(family, Random(seed_for("pocket", 0, "evaluation", family, index)))
        for family in FAMILIES
        for index in range(5)
    )
    monkeypatch.setattr(scoring, "complete", lambda model, tokenizer, prompts, n_new: [known[p] for p in prompts])
    assert set(scoring.score_families(None, None, 5).values()) == {1.0}
