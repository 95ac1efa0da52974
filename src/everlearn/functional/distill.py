"""Distillation: how far a student's answers are from a teacher's."""

import torch
from torch.nn import functional as F


def distillation_loss(teacher: torch.Tensor, student: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """Return the mean over items of KL(teacher || student) at a temperature, times the temperature squared.

    T^2 * mean_n sum_c p_T(c) (log p_T(c) - log p_S(c)), p = softmax(logits / T); T^2 keeps the gradient's size.

    Args:
        teacher: logits [n_items, n_classes]; no gradient flows into them.
        student: logits [n_items, n_classes].

    Returns:
        A scalar, nats, >= 0; 0 where there are no items.

    Source: Hinton et al. 2015, arXiv 1503.02531, sec. 2.
    """
    if len(student) == 0:
        return student.sum()
    log_p_teacher = F.log_softmax(teacher.detach().float() / temperature, dim=-1)
    log_p_student = F.log_softmax(student.float() / temperature, dim=-1)
    return F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True) * temperature**2
