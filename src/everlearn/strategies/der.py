"""Dark experience replay: rows of the past get the logits that they got when they were stored."""

from dataclasses import dataclass

from everlearn.memory.dark import DarkReplay
from everlearn.registry import register


@register("strategy", "der")
@dataclass
class DER(DarkReplay):
    """Hold the logits of stored rows where they were: mean CE of new rows + alpha * mean (z_stored - z)^2 of old ones.

    The labels of stored rows aren't used. Outputs that a head grew after a row was stored aren't compared. Of a
    language model, the logits at the completion's positions are kept: the top_k largest, in float16, and the log of
    the summed exp of all the others as one more, so that probability can't move there unseen.

    Args:
        capacity: rows kept over all tasks, a uniform sample of all rows seen (reservoir). Where it is lowered, rows
            over it are let go before the next task begins, drawn uniformly; where it is raised, later rows are taken at
            the rate at which earlier ones are held, until it is full.
        alpha: weight of an old row's squares beside a new row's cross-entropy.
        ratio: old rows in a batch for each new row.
        weigh_by: row, so that in a step each old row counts in the loss as much as a new one does on average, whatever
            their lengths; or token, so that each old target counts as much as a new one.
        top_k: logits kept at each target token of a language model.
        batch_size: rows at once while logits are recorded; the result doesn't depend on it.

    Cost: (1 + ratio) times plain training from the second task on; after a task a forward pass over the rows that were
    taken up. Keeps the rows and their logits: 6 * top_k + 2 bytes a target token, or 8 bytes a class.

    Source: Buzzega et al. 2020, arXiv 2004.07211, eq. 5.
    Departs: rows and logits are stored at the end of a task, not at every step, so that logits are the trained model's
    and not those of some step on the way, and a task's own rows aren't replayed within it. Squares are averaged over
    classes (eq. 5 sums them), and the two means are weighed by their rows, which at ratio 1 halves both.
    Reproduces: not verified; our results stand in METHODS.md.
    """
