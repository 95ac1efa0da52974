"""The critic: it learns what answers earn, and leaves the actor alone."""

import pytest
import torch

from everlearn.rl.critic import HEAD, MODEL, Critic
from everlearn.rl.losses import value_losses
from everlearn.rl.rollouts import Answered, lay_out
from support.policy import learned, letters_task, policy_run
from support.runs import start_lora_away_from_zero

ASKED = [
    Answered(None, {}, (0, 0), [5, 6, 7], [[8, 9, 2], [10]], [1, 2]),
    Answered(None, {}, (0, 0), [11], [[12]], [3]),
]


@pytest.fixture(params=[(HEAD, True), (HEAD, False), (MODEL, True)], ids=["head", "head, rows", "model"])
def critic(request, llama):
    """A critic with weights, of a run; and a batch, packed or not."""
    kind, packed = request.param
    run = policy_run(llama, letters_task())
    start_lora_away_from_zero(run)
    run.model.network.eval()
    made = Critic(run, kind, 0.01, 1.0, None)
    with torch.no_grad():
        made.head.weight.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    yield made, lay_out(run.model, ASKED, packed=packed)
    made.close()


def test_its_values_are_of_the_states_before_each_token(critic):
    made, batch = critic
    model = made.run.model
    outputs = model.objective.forward(model.network, batch)
    found = made.values(batch)
    assert found.dtype == torch.float32
    assert len(found) == len(outputs.targets)
    wanted = []
    for one in ASKED:
        for ids in one.responses:
            trunk = model.network.get_base_model().model
            hidden = trunk(torch.tensor([one.prompt + ids])).last_hidden_state[0, len(one.prompt) - 1 : -1]
            wanted.append((hidden @ made.head.weight[0] + made.head.bias).detach())
    torch.testing.assert_close(found.detach(), torch.cat(wanted), atol=1e-5, rtol=1e-5)


def test_its_loss_sends_no_gradient_into_the_actor_and_its_step_moves_itself_alone(critic):
    made, batch = critic
    model, params = made.run.model, made.run.model.adapters.trainable()
    before = {name: p.detach().clone() for name, p in model.network.named_parameters()}
    own = {name: p.clone() for name, p in made.state().items()}
    model.objective.forward(model.network, batch)
    (made.values(batch) - 1).square().sum().backward()
    assert all(p.grad is None for p in params.values())
    made.step()
    assert all(torch.equal(p, before[name]) for name, p in model.network.named_parameters())
    assert not all(torch.equal(p, own[name]) for name, p in made.state().items())
    assert all(p.grad is None for p in made.parameters.values())


def test_values_are_float32_in_mixed_precision_too(critic):
    """A value that is rounded to 8 bits is off by up to a 256th, which a critic would learn from."""
    made, batch = critic
    with torch.autocast("cpu", torch.bfloat16):
        made.run.model.objective.forward(made.run.model.network, batch)
        found = made.values(batch)
    assert found.dtype == torch.float32
    assert not torch.equal(found, found.bfloat16().float())


def test_it_goes_on_from_what_it_learned(critic):
    made, batch = critic
    kind = HEAD if made.network is None else MODEL
    again = Critic(made.run, kind, 0.01, 1.0, {name: p.clone() for name, p in made.state().items()})
    made.run.model.objective.forward(made.run.model.network, batch)
    assert torch.equal(again.values(batch), made.values(batch))
    again.close()


def test_it_learns_that_every_answer_is_worth_1(critic):
    made, batch = critic
    for _ in range(150):
        made.run.model.objective.forward(made.run.model.network, batch)
        loss = value_losses(made.values(batch), torch.zeros(5), torch.ones(5), None).mean()
        loss.backward()
        made.step()
    assert loss.item() < 1e-3


@pytest.mark.parametrize("kind", [HEAD, MODEL])
def test_in_a_run_it_learns_and_is_gone_afterwards(kind, llama):
    run = policy_run(
        llama, letters_task("is_anything"), advantage="gae", critic=kind, critic_learning_rate=0.02, iterations=12,
        learning_rate=1e-9, value_clip=None,
    )  # fmt: skip
    told = learned(run)
    assert told[0]["value_loss"] == pytest.approx(0.5)  # it begins at 0
    assert told[-1]["value_loss"] < 0.2
    assert not [hook for module in run.model.network.modules() for hook in module._forward_pre_hooks]
    assert run.learner.critic_.keys() >= {"head.weight", "head.bias"}
