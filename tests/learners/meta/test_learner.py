import copy
import random

import numpy
import pytest
import torch
from torch.func import functional_call
from torch.nn import functional as F

from everlearn.errors import ConfigError, ModelError, StreamError, TrainingError
from everlearn.learners.meta import MetaConfig, MetaLearner
from everlearn.learners.meta.episodes import ReplayedStream, TaskEpisodes
from everlearn.models.load import AdapterConfig, ModelConfig
from everlearn.models.neuromodulated import neuromodulated
from everlearn.models.plain import mlp
from everlearn.types import Stream, Task, TensorRows
from reference.meta import mer_by_hand
from support.noisy import Noisy
from support.runs import assert_same
from support.tasks import classify_task, prompt_task, regression_task, tensor_task

TASKS = [regression_task(number, n_train=8) for number in range(3)]
SMALL = {"n_support": 4, "n_query": 4, "meta_batch_size": 2}
ALL = {
    "maml": SMALL,
    "first_order": {"algorithm": "maml", "first_order": True, **SMALL},
    "reptile": {"algorithm": "reptile", **SMALL},
    "oml": {"algorithm": "oml", **SMALL},
    "anml": {"algorithm": "anml", **SMALL},
    "joint": {"algorithm": "joint", **SMALL},
    "mer": {"algorithm": "mer", "meta_batch_size": 2, "within_lr": 0.5},
}


def smooth(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 1))


def gated(dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = neuromodulated(4, 1, (6,), (5,))
        network.body.append(torch.nn.Dropout(dropout))
        return network


def weights_of(network):
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def half_squared_error(network, weights, batch):
    return 0.5 * F.mse_loss(functional_call(network, weights, (batch["x"],)), batch["y"])


@pytest.mark.parametrize("vectorize", [True, False])
def test_maml_steps_along_the_gradient_through_the_inner_loop(vectorize):
    network, by_hand = smooth(), smooth()
    options = {**SMALL, "outer_optimizer": "sgd", "vectorize": vectorize}
    learner = MetaLearner(network, 0.2, 0.1, 3, options=options)
    losses = learner.fit(TASKS, 2)
    source = TaskEpisodes(TASKS, learner.model.objective, learner.config, 0)
    for step in range(2):
        parameters = dict(by_hand.named_parameters())
        total = 0.0
        for episode in source.at(step):
            fast = parameters
            for batch in episode.support:
                loss = half_squared_error(by_hand, fast, batch)
                gradients = torch.autograd.grad(loss, list(fast.values()), create_graph=True)
                fast = {n: p - 0.2 * g for (n, p), g in zip(fast.items(), gradients, strict=True)}
            total = total + half_squared_error(by_hand, fast, episode.query) / 2
        gradients = torch.autograd.grad(total, list(parameters.values()))
        assert losses[step] == pytest.approx(total.item(), rel=1e-5)
        with torch.no_grad():
            for p, gradient in zip(parameters.values(), gradients, strict=True):
                p -= 0.1 * gradient
    assert_same(weights_of(network), weights_of(by_hand), 1e-5)


def test_reptile_moves_towards_the_mean_of_what_the_tasks_make_of_it():
    network, before = smooth(), weights_of(smooth())
    learner = MetaLearner(network, 0.2, 0.3, 3, algorithm="reptile", options=SMALL)
    learner.fit(TASKS, 1)
    ends = []
    for episode in TaskEpisodes(TASKS, learner.model.objective, learner.config, 0).at(0):
        own = smooth()
        optimizer = torch.optim.SGD(own.parameters(), lr=0.2)
        for batch in episode.support:
            optimizer.zero_grad()
            (0.5 * F.mse_loss(own(batch["x"]), batch["y"])).backward()
            optimizer.step()
        ends.append(weights_of(own))
    wanted = {n: w + 0.3 * (sum(end[n] for end in ends) / len(ends) - w) for n, w in before.items()}
    assert_same(weights_of(network), wanted, 1e-5)


def test_mer_is_its_papers_algorithm_over_a_stream():
    network, by_hand = smooth(), smooth()
    options = {"algorithm": "mer", "meta_batch_size": 2, "within_lr": 0.4, "memory_size": 4}
    learner = MetaLearner(network, 0.2, 0.7, 3, options=options)
    assert len(learner.fit(TASKS)) == sum(len(task.train) for task in TASKS)
    stream = ReplayedStream(TASKS, learner.model.objective, learner.config, 0)
    for step in range(len(stream)):
        batches = [[(batch["x"], batch["y"]) for batch in episode.support] for episode in stream.at(step)]
        # half the squared error with twice the rate takes the steps of the squared one
        by_hand.load_state_dict(mer_by_hand(by_hand, batches, 0.1, within=0.4, across=0.7))
    assert_same(weights_of(network), weights_of(by_hand), 1e-4)
    with pytest.raises(StreamError, match="the stream has ended"):
        learner.fit(TASKS, 1)


def test_mer_goes_on_with_later_tasks_and_remembers_earlier_ones():
    options = {"algorithm": "mer", "meta_batch_size": 2, "within_lr": 0.4}
    together, apart = MetaLearner(smooth(), options=options), MetaLearner(smooth(), options=options)
    together.fit(TASKS)
    for task in TASKS:
        apart.fit([task])
    assert_same(weights_of(together.model.network), weights_of(apart.model.network))


def test_oml_adapts_the_prediction_network_and_learns_the_representation():
    network = smooth()
    learner = MetaLearner(network, 0.1, 0.01, 3, algorithm="oml", options=SMALL)
    learner.prepare(TASKS)
    before = weights_of(network)
    with learner.adapted(TASKS[0]):
        moved = [name for name, tensor in weights_of(network).items() if not torch.equal(tensor, before[name])]
    assert moved == ["2.weight", "2.bias"]
    learner.fit(TASKS, 1)
    assert all(not torch.equal(tensor, before[name]) for name, tensor in weights_of(network).items())


def test_anml_adapts_all_but_the_gate_and_learns_the_gate():
    network = gated()
    learner = MetaLearner(network, 0.1, 0.01, 3, algorithm="anml", options=SMALL)
    learner.prepare(TASKS)
    before = weights_of(network)
    with learner.adapted(TASKS[0]):
        moved = {n.split(".")[0] for n, tensor in weights_of(network).items() if not torch.equal(tensor, before[n])}
    assert moved == {"body", "head"}
    learner.fit(TASKS, 1)
    assert any(not torch.equal(tensor, before[n]) for n, tensor in weights_of(network).items() if "gate" in n)


@pytest.mark.parametrize("name", ALL)
def test_a_resumed_learner_ends_alike_bit_for_bit(name):
    def new():
        return MetaLearner(gated(dropout=0.3), 0.05, 0.01, 2, options=ALL[name], seed=3)

    whole, first, second = new(), new(), new()
    losses = whole.fit(TASKS, 6)
    again = first.fit(TASKS, 4)
    state = first.state()
    state["weights"] = {key: tensor.clone() for key, tensor in state["weights"].items()}
    second.load_state(state, TASKS)
    again += second.fit(TASKS, 2)
    assert again == losses
    assert_same(weights_of(second.model.network), weights_of(whole.model.network))


def test_a_module_that_draws_from_python_and_numpy_is_seeded():
    network = Noisy(4, 1)
    first, second = (
        MetaLearner(copy.deepcopy(network), 0.05, 0.01, 2, options=SMALL | {"vectorize": False}) for _ in "ab"
    )
    state = random.getstate()
    losses = first.fit(TASKS, 2)
    assert random.getstate() == state
    random.random(), numpy.random.rand()
    assert second.fit(TASKS, 2) == losses


@pytest.mark.parametrize("name", ALL)
def test_the_model_is_left_as_it_was_found(name):
    network = gated(dropout=0.3).eval()
    network.head.train()
    learner = MetaLearner(network, 0.05, 0.01, 2, options=ALL[name])
    random = torch.get_rng_state()
    learner.fit(TASKS, 2)
    before = weights_of(network)
    with learner.adapted(TASKS[0]) as model:
        assert model.network is network
        assert any(not torch.equal(tensor, before[name]) for name, tensor in weights_of(network).items())
    learner.score(TASKS[1])
    assert_same(weights_of(network), before)
    assert all(p.grad is None for p in network.parameters())
    assert [module.training for module in (network, network.body, network.gate, network.head)] == [False] * 3 + [True]
    assert torch.equal(torch.get_rng_state(), random)
    network(torch.ones(2, 4)).sum().backward()  # an ordinary module still


def test_a_block_that_fails_gives_the_weights_back():
    network = smooth()
    learner = MetaLearner(network, 0.1)
    learner.prepare(TASKS)
    before = weights_of(network)
    with pytest.raises(RuntimeError, match="stop"), learner.adapted(TASKS[0]):
        raise RuntimeError("stop")
    assert_same(weights_of(network), before)


@pytest.mark.parametrize("name", [name for name in ALL if name != "anml"])
def test_lora_of_a_language_model(name, llama):
    tasks = [prompt_task(number) for number in range(3)]
    learner = MetaLearner({"name": str(llama), "adapter": {"rank": 2}}, 0.1, 0.01, 2, options=ALL[name])
    learner.prepare(tasks)
    network, adapters = learner.model.network, learner.model.adapters
    backbone = {n: p.detach().clone() for n, p in network.named_parameters() if "lora_" not in n}
    before = {n: p.detach().clone() for n, p in adapters.trainable().items()}
    assert all(0 < loss < 20 for loss in learner.fit(tasks[:2], 2))
    assert any(not torch.equal(p, before[n]) for n, p in adapters.trainable().items())
    assert_same({n: p.detach() for n, p in network.named_parameters() if "lora_" not in n}, backbone)
    learned = {n: p.detach().clone() for n, p in adapters.trainable().items()}
    assert learner.score(tasks[2]).n == 4
    assert_same({n: p.detach() for n, p in adapters.trainable().items()}, learned)


def test_second_order_through_attention_equals_plain_autograd(llama):
    tasks = [prompt_task(number) for number in range(2)]
    config = ModelConfig(str(llama), AdapterConfig("lora", rank=2))
    options = {**SMALL, "outer_optimizer": "sgd", "meta_batch_size": 1}
    learner, other = (MetaLearner(config, 0.5, 1.0, 2, options=options) for _ in range(2))
    learner.prepare(tasks)
    other.prepare(tasks)
    start = {n: p.detach().clone() for n, p in other.model.adapters.trainable().items()}
    learner.fit(tasks, 1)
    (episode,) = TaskEpisodes(tasks, other.model.objective, other.config, 0).at(0)

    def loss(weights, batch):
        inputs = {name: tensor for name, tensor in batch.items() if name != "labels"}
        logits = functional_call(other.model.network, weights, (), inputs).logits[:, :-1]
        return F.cross_entropy(logits.transpose(1, 2), batch["labels"][:, 1:])

    weights = {n: w.clone().requires_grad_() for n, w in start.items()}
    with other.training():
        fast = weights
        for batch in episode.support:
            gradients = torch.autograd.grad(loss(fast, batch), list(fast.values()), create_graph=True)
            fast = {n: w - 0.5 * g for (n, w), g in zip(fast.items(), gradients, strict=True)}
        gradients = torch.autograd.grad(loss(fast, episode.query), list(weights.values()))
    wanted = {n: start[n] - g for n, g in zip(weights, gradients, strict=True)}
    assert_same({n: p.detach() for n, p in learner.model.adapters.trainable().items()}, wanted, 1e-4)


def test_learning_to_learn_helps_on_a_new_task():
    def line(number):
        generator = torch.Generator().manual_seed(number)
        x = torch.randn(40, 1, generator=generator)
        y = torch.randn(1, generator=generator) * x.sin()
        return Task(f"line_{number}", "tensor", TensorRows(x[:20], y[:20]), TensorRows(x[20:], y[20:]))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = mlp(1, 1, (20, 20))
    learner = MetaLearner(network, 0.1, 0.01, 3, options={**SMALL, "meta_batch_size": 8})
    new = [line(number) for number in range(50, 60)]
    learner.prepare(new)
    before = sum(learner.score(task).value for task in new)
    learner.fit([line(number) for number in range(30)], 100)
    assert sum(learner.score(task).value for task in new) > 0.5 * before  # minus squared errors
    assert sum(learner.score(task, 0).value for task in new) < sum(learner.score(task).value for task in new)


def test_tasks_with_their_own_output_columns():
    tasks = [tensor_task(number) for number in range(3)]
    learner = MetaLearner({"name": "mlp", "options": {"hidden": [8]}}, 0.1, algorithm="oml", options=SMALL)
    learner.prepare(tasks)
    learner.fit(tasks, 2)
    assert learner.score(tasks[2]).metric == "accuracy"


def test_errors_name_what_is_wrong(bert):
    with pytest.raises(ConfigError, match=r"learner\.inner_lrr: is unknown"):
        MetaLearner(smooth(), options={"inner_lrr": 1})
    with pytest.raises(ConfigError, match="knows no task yet"):
        MetaLearner(smooth()).model  # noqa: B018
    with pytest.raises(ConfigError, match="has no number of steps"):
        MetaLearner(smooth(), options=SMALL).fit(TASKS)
    with pytest.raises(StreamError, match="has no task"):
        MetaLearner(smooth(), options=SMALL).fit([], 1)
    with pytest.raises(ModelError, match="new head"):
        MetaLearner(str(bert)).prepare([classify_task(0)])


@pytest.mark.parametrize("name", ALL)
def test_a_step_that_is_not_finite_is_not_taken(name):
    network, before = gated(), weights_of(gated())
    options = {"inner_lr": 1e38, **ALL[name]}
    tasks = TASKS
    if name == "joint":  # has no inner loop
        tasks = [Task("far", "tensor", TensorRows(1e30 * TASKS[0].train.x, TASKS[0].train.y), TASKS[0].evaluation)]
    with pytest.raises(TrainingError, match="outer step 1: the step is not finite"):
        MetaLearner(network, options=options).fit(tasks, 1)
    assert_same(weights_of(network), before)
    assert all(p.grad is None for p in network.parameters())


def test_joint_training_has_no_inner_loop_whatever_the_episodes_hold():
    class Source:
        tasks = TASKS

        def at(self, step):
            return TaskEpisodes(TASKS, learner.model.objective, MetaConfig(**SMALL), 0).at(step)

    learner = MetaLearner(smooth(), 0.2, 0.1, algorithm="joint", options={**SMALL, "outer_optimizer": "sgd"})
    by_hand = smooth()
    learner.fit(Source(), 1)
    queries = [episode.query for episode in Source().at(0)]
    loss = sum(half_squared_error(by_hand, dict(by_hand.named_parameters()), query) for query in queries) / 2
    loss.backward()
    wanted = {name: (p - 0.1 * p.grad).detach() for name, p in by_hand.named_parameters()}
    assert_same(weights_of(learner.model.network), wanted, 1e-5)


def test_a_stream_is_its_tasks():
    one, other = (MetaLearner(smooth(), options=SMALL) for _ in range(2))
    assert one.fit(Stream("lines", tuple(TASKS)), 2) == other.fit(TASKS, 2)


def test_settings_can_be_given_all_at_once():
    assert MetaLearner(smooth(), options={"inner_lr": 0.5}).config == MetaConfig(inner_lr=0.5)
