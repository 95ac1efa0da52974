"""A generator restores what it learned, row by row."""

import pytest
import torch

from everlearn.memory.latent.fidelity import relative_error
from everlearn.memory.latent.generator import Decoder, Generator, decoding_loss, train_generator
from everlearn.memory.latent.layers import Latents, within


def latents(n=16, seed=0):
    """Return rows of few kinds: a wave along the positions, whose first one is far off."""
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 9, (n,), generator=random)
    phase = torch.rand(n, 1, 1, generator=random) * 6
    waves = (phase + torch.arange(8)[:, None] * 0.7 + torch.arange(12) * (1 + seed)).sin()
    waves[:, 0] += 50
    mask = within(lengths, 8)
    targets = torch.arange(8) == lengths[:, None] - 1
    return Latents(waves * mask[..., None], lengths, targets, torch.zeros(n, dtype=torch.long))


def made(conditioned=False):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = Decoder(width=12, inner=12, n_slots=2, code_size=6, depth=1, conditioned=conditioned)
        return Generator(decoder, depth=1)


def trained(generator, rows, epochs=80, prototypes=None):
    random = torch.Generator().manual_seed(0)
    train_generator(generator, rows, prototypes, epochs=epochs, batch_size=16, learning_rate=1e-2, random=random)
    return generator


@pytest.fixture(scope="module")
def learned():
    """Return rows and a generator that has learned them; a test that changes it takes a copy."""
    rows, generator = latents(), made()
    generator.prepare(rows)
    return rows, trained(generator, rows)


def restored(generator, rows):
    """Return decoded states, and how likely targets are read there."""
    codes, found = generator.codes_and_restored(rows)
    return found.states, generator.decoder(codes, rows.lengths)[1].detach()


def test_states_are_standardised_the_first_position_apart():
    rows, generator = latents(), made()
    generator.prepare(rows)
    standard = generator.decoder.standardised(rows.states)
    for states in (standard[:, 0], standard[:, 1:][rows.mask[:, 1:]]):
        assert states.mean(0).abs().max() < 1e-4
        torch.testing.assert_close(states.std(0, correction=0), torch.ones(12), rtol=1e-4, atol=0)
    torch.testing.assert_close(generator.decoder.restored(standard), rows.states, rtol=1e-4, atol=1e-4)


def test_it_restores_rows_and_where_their_targets_are_read(learned):
    rows, generator = learned
    fresh = made()
    fresh.prepare(rows)
    assert relative_error(rows.states, restored(fresh, rows)[0], rows.mask) > 0.9
    states, scores = restored(generator, rows)
    assert relative_error(rows.states, states, rows.mask) < 0.4
    assert torch.equal(scores.masked_fill(~rows.mask, -99).argmax(1), rows.lengths - 1)
    assert all(p.grad is None for p in generator.parameters())


def test_a_row_does_not_depend_on_those_beside_it():
    rows, generator = latents(), made()
    generator.prepare(rows)
    alone = rows.pick(slice(0, 1))
    together, one = restored(generator, rows), restored(generator, alone)
    n = int(alone.lengths)
    torch.testing.assert_close(together[0][:1, :n], one[0])
    torch.testing.assert_close(together[1][:1, :n], one[1])


def test_a_prototype_tells_apart_what_codes_alone_do_not():
    rows, generator = latents(), made(conditioned=True)
    generator.prepare(rows)
    prototypes = torch.eye(12)[torch.arange(len(rows)) % 2]
    trained(generator, rows, epochs=2, prototypes=prototypes)
    codes = torch.zeros(1, 2, 6)
    one, other = (generator.decoder(codes, rows.lengths[:1], prototypes[i : i + 1])[0] for i in (0, 1))
    assert (one - other).abs().max() > 1e-3


def test_the_loss_is_the_mean_over_positions_of_rows():
    rows, generator = latents(4), made()
    generator.prepare(rows)
    standard = generator.decoder.standardised(rows.states)
    codes = generator.encode(standard, rows.lengths)
    found, scores = generator.decoder(codes, rows.lengths)
    longest = int(rows.lengths.max())
    errors, chances, n = 0.0, 0.0, int(rows.lengths.sum())
    for row in range(4):
        for place in range(int(rows.lengths[row])):
            errors += (found[row, place] - standard[row, place]).square().mean() / n
            chance = scores[row, place].sigmoid()
            chances -= (chance if rows.targets[row, place] else 1 - chance).log() / n
    own = rows.with_states(standard).pick(slice(None))
    assert own.states.shape[1] == longest
    torch.testing.assert_close(decoding_loss(generator.decoder, codes, own, None), errors + chances)
