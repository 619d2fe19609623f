"""Pre-training: one loop for one process or many, with state that resumes exactly."""

from deri.training.pretrain import pretrain

__all__ = ["pretrain"]
