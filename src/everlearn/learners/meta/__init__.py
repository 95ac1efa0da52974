"""Learning to learn: weights from which a few gradient steps on a new task go far, or forget little."""

from everlearn.learners.meta.config import ALGORITHMS, MetaConfig
from everlearn.learners.meta.episodes import Episode, Episodes
from everlearn.learners.meta.learner import MetaLearner

__all__ = ["ALGORITHMS", "Episode", "Episodes", "MetaConfig", "MetaLearner"]
