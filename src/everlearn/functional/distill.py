"""Distillation: how far a student's answers are from a teacher's."""

import torch
from torch.nn import functional as F

from everlearn.types import Family


def distillation_loss(
    teacher: torch.Tensor,
    student: torch.Tensor,
    temperature: float = 1.0,
    strength: float = 1.0,
    family: Family = "categorical",
) -> torch.Tensor:
    """Return the mean over items of KL(teacher || student) at a temperature, times the temperature squared.

    strength * T^2 * mean_n sum_c p_T(c) (log p_T(c) - log p_S(c)), p = softmax(logits / T); T^2 keeps the gradient's
    size. Of numbers (family normal) it is strength * mean_n 1/2 |t_n - s_n|^2, the same at any temperature;
    of classes that are there or not by themselves (bernoulli) the sum of their divergences.

    Args:
        teacher: logits [n_items, n_classes]; no gradient flows into them.
        student: logits [n_items, n_classes].
        family: see `Outputs.family`.

    Returns:
        A scalar, nats, >= 0; 0 where there are no items.

    Source: Hinton et al. 2015, arXiv 1503.02531, sec. 2.
    """
    if len(student) == 0:
        return student.sum()
    if family != "categorical":
        before = answer_scores(teacher.detach(), temperature, family)
        now = answer_scores(student, temperature, family)
        return strength * temperature**2 * answer_divergences(before, now, family).mean()
    log_p_teacher = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    log_p_student = F.log_softmax(student.float() / temperature, dim=-1)
    total = F.kl_div(log_p_student, log_p_teacher, reduction="sum", log_target=True)
    return total * (strength * temperature**2 / len(student))  # one factor: each product more is felt in a small step


def divergences(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """Return KL(p || q) = sum_c p(c) (log p(c) - log q(c)) of each line [n], nats.

    Args:
        log_p, log_q: log-probabilities [n, n_outcomes]; gradients flow into both.
    """
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def answer_scores(logits: torch.Tensor, temperature: float, family: Family) -> torch.Tensor:
    """Return what `answer_divergences` compares: log-probabilities at a temperature, numbers over it, float32."""
    scaled = logits.float() / temperature
    return F.log_softmax(scaled, dim=-1) if family == "categorical" else scaled


def answer_divergences(before: torch.Tensor, now: torch.Tensor, family: Family) -> torch.Tensor:
    """Return KL(before || now) of each line of `answer_scores` [n]: of numbers half their squared distance.

    log(1 - sigmoid(z)) = log sigmoid(z) - z gives the part of a class that isn't there.
    """
    if family == "categorical":
        return divergences(before, now)
    if family == "normal":
        return 0.5 * (before - now).square().flatten(1).sum(1)
    p = before.sigmoid()
    there = F.logsigmoid(before) - F.logsigmoid(now)
    return (p * there + (1 - p) * (there - before + now)).sum(1)


def outcomes_at(scores: torch.Tensor, columns: torch.Tensor, with_rest: bool) -> torch.Tensor:
    """Return the scores at some columns and, as one outcome more, those of all the others together.

    The others are summed as exp(score): for log-probabilities the last outcome is the log of the mass that remains.

    Args:
        scores: logits or log-probabilities [n, n_classes]. columns: [n, k], int64; all of a line differ.

    Returns:
        [n, k + 1], or [n, k] without the rest. With k outcomes and the rest, the softmax is that of all classes.
    """
    chosen = scores.gather(1, columns)
    if not with_rest:
        return chosen
    rest = scores.scatter(1, columns, -torch.inf).logsumexp(1, keepdim=True)
    return torch.cat([chosen, rest], dim=1)


def top_outcomes(scores: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut scores [n, n_classes] down to what can be kept: the k largest of each line, and the others as one outcome.

    Returns:
        (outcomes [n, k + 1], their columns [n, k]); with k >= n_classes all of them, in order, and no rest.
    """
    n_classes = scores.shape[1]
    if k >= n_classes:
        return scores, torch.arange(n_classes, device=scores.device).expand(len(scores), -1)
    columns = scores.topk(k, dim=1).indices
    return outcomes_at(scores, columns, with_rest=True), columns


def mean_squares(student: torch.Tensor, stored: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of each line over its known outcomes [n].

    Args:
        student, stored: [n, n_outcomes]. known: bool, of the same shape; at least one a line.

    Source: Buzzega et al. 2020, arXiv 2004.07211, eq. 5, there the sum of squares.
    """
    squares = torch.where(known, student - stored, 0.0).square()
    return squares.sum(1) / known.sum(1)
