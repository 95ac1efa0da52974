import pytest
import torch
from torch import nn

from everlearn.errors import ModelError
from everlearn.models.heads import GrowingHead, column_mask, install_head


def test_active_blocks_are_computed_in_their_order():
    head = GrowingHead(3)
    assert [head.add_block(2), head.add_block(4)] == [0, 1]
    features = torch.randn(5, 7, 3)
    whole = head(features)
    assert whole.shape == (5, 7, 6)
    head.active = [1]
    assert torch.equal(head(features), whole[..., 2:])
    assert torch.equal(head.block_logits(0), whole[..., :2])


def test_a_block_that_is_not_active_is_frozen_even_under_weight_decay():
    head = GrowingHead(3)
    head.add_block(2), head.add_block(2)
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.1, weight_decay=0.1)
    kept = head.blocks[0].weight.detach().clone()
    head.active = [1]
    for _ in range(3):
        head(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(head.blocks[0].weight, kept)


def test_blocks_are_float32_whatever_the_backbone():
    head = GrowingHead(3)
    head.add_block(2)
    assert head(torch.ones(1, 3, dtype=torch.bfloat16)).dtype == torch.float32


def test_it_takes_the_place_of_the_last_layer_to_the_labels():
    network = nn.Sequential(nn.Linear(4, 2), nn.ReLU(), nn.Sequential(nn.Linear(2, 2)))
    head, before = install_head(network, 2)
    assert network[2][0] is head
    assert before.out_features == 2
    assert head.in_features == 2
    assert isinstance(network[0], nn.Linear)
    with pytest.raises(ModelError, match=r"no linear layer to its labels. Got 9"):
        install_head(network, 9)


def test_column_mask():
    assert column_mask([(0, 2), (2, 3)], 4).tolist() == [[True, True, False, False], [False, False, True, False]]
