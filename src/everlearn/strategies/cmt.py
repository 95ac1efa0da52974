"""CMT, a compressive memory transformer: hidden states of earlier tasks are drawn anew and answered as before."""

from dataclasses import dataclass

from everlearn.memory.latent.replay import LatentReplay
from everlearn.registry import register


@register("strategy", "cmt")
@dataclass
class CMT(LatentReplay):
    """Replay hidden states that a generator makes, and hold what the blocks above answer to them.

    loss + replay_alpha * KL(adapter as it was before the task || now), a mean over the drawn rows' targets, +
    feature_alpha * the mean squared difference of the last features there. After a task its rows are run through the
    blocks below `layer`, the adapter off, and a small transformer learns to press their hidden states
    [positions, width] into `slots` codes and to restore them. Of it the decoder is kept, and a mixture of Gaussians
    over codes and lengths: no row is. A task's decoder never changes again, however many tasks follow. In each step
    rows of one earlier task are drawn, all tasks alike.

    Args:
        replay_alpha: weight of the divergence. feature_alpha: weight of the squared difference.
        layer: number of the block, from 0, whose inputs are replayed. Null: the middle one, or the first with a LoRA
            where that is higher. LoRA below it is no part of what is held; how many answers stay the same without it
            is told, and stands in the results (`full_agreement`). At 0 all of it is held, but what goes into the first
            block is the hardest to restore.
        replay_batch_size: rows drawn for a step; those of all its micro-batches are the same.
        encoding_batch_size: rows at once while they are encoded and while the generator learns.
        slots: codes of a row. code_size: numbers of a code.
        width: of the generator's own states, at most the model's. depth: layers of its encoder and of its decoder.
        components: Gaussians of a task's mixture, at most one for four rows.
        epochs: passes over a task's rows while the generator learns. learning_rate: at its start; Adam, falling to 0
            along a cosine.
        max_rows: rows of a task that the generator learns from, drawn evenly.
        max_tokens: of a row; of a longer one a language model keeps the end, a classifier the start.

    A task that is learned again is known by its newest rows.

    Cost: two passes of replay_batch_size rows through the blocks from `layer` on, one of them with gradients, for each
    micro-batch from the second task on. After a task, one pass over its rows, and epochs * rows / encoding_batch_size
    steps of the generator. Keeps for each task a decoder, about 40 * depth * width^2 + 4 * width * (the model's width)
    bytes, and 8 * components * (slots * code_size + 2) bytes.

    Source: none published. Parts: cross-attention to few slots, Jaegle et al. 2021, arXiv 2103.03206; a mixture fitted
    to an autoencoder's codes, Ghosh et al. 2020, arXiv 1903.12436; generated replay of hidden states, van de Ven et al.
    2020, doi 10.1038/s41467-020-17866-2. What is called CMT in arXiv 2412.07393 (Compression Memory Training) is
    another method. The two weights are those of a notebook on Gemma-2B.
    Reproduces: not verified; our results stand in METHODS.md.
    """
