"""L2-regularised logistic regression of many classes at many strengths at once, to convergence.

Each (strength α, class) is its own convex problem: the mean over records of the binary cross-entropy, plus
α/2 ‖w‖²; the intercept is free. (scikit-learn's C is 1 / (n α).) All of them run side by side as one matrix product,
by L-BFGS in float64. Features of a network are strongly correlated, which makes gradient methods slow; in the
eigenbasis of their covariance, which leaves the penalty as it is, the Hessian is nearly diagonal, and with that as the
preconditioner a few dozen steps suffice (hundreds where classes are separable and the penalty is weak).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MEMORY = 10
MAX_ITERATIONS = 2000
"""After which a problem counts as not converged."""
TOLERANCE = 1e-5
"""Of the gradient in preconditioned coordinates; the loss is then within about 1e-10 of its minimum."""


@dataclass(frozen=True)
class LogisticFits:
    """Fits of all strengths: logits are ``x @ weight[s].T + bias[s]`` for standardised or raw x, as fitted."""

    strengths: tuple[float, ...]
    weight: np.ndarray  # (strengths, classes, d)
    bias: np.ndarray  # (strengths, classes)
    converged: np.ndarray  # (strengths, classes) bool

    def logits(self, features: np.ndarray) -> np.ndarray:
        """(n, d) → (strengths, n, classes) float64."""
        return np.einsum("nd,scd->snc", features.astype(np.float64), self.weight, optimize=True) + self.bias[:, None]


def fit_logistic(features: np.ndarray, labels: np.ndarray, strengths: tuple[float, ...]) -> LogisticFits:
    """Fit every class at every strength.

    A class whose records are all positive or all negative has no finite fit: its weights are 0 and its bias is the
    logit of (n_pos + ½) / (n + 1), the same for every record.

    Args:
        features: (n, d), finite; standardise them first, as the penalty treats all alike.
        labels: (n, classes) 0 or 1.
        strengths: values of α, all positive.
    """
    if not strengths or min(strengths) <= 0:
        raise ValueError("strengths of the penalty must be positive")
    n, n_classes = labels.shape
    x = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64))
    y = torch.from_numpy(np.ascontiguousarray(labels, dtype=np.float64))
    n_pos = labels.sum(axis=0, dtype=np.int64)
    fitted = np.flatnonzero((n_pos > 0) & (n_pos < n))
    weight = np.zeros((len(strengths), n_classes, features.shape[1]))
    prior = (n_pos + 0.5) / (n + 1)
    bias = np.tile(np.log(prior / (1 - prior)), (len(strengths), 1))
    converged = np.ones((len(strengths), n_classes), bool)
    if len(fitted):
        centre = x.mean(dim=0)
        z, basis, variance = _eigenbasis(x - centre)
        problem = _Problems.make(z, variance, y[:, torch.from_numpy(fitted)], strengths)
        u, done = _minimise(problem)
        u = u.view(len(strengths), len(fitted), -1)
        w = u[..., :-1] @ basis.T
        weight[:, fitted] = w.numpy()
        bias[:, fitted] = (u[..., -1] - w @ centre).numpy()
        converged[:, fitted] = done.view(len(strengths), len(fitted)).numpy()
    return LogisticFits(tuple(strengths), weight, bias, converged)


@dataclass
class _Problems:
    """P = strengths × classes problems over coordinates v, where u = v · scale are weights in the eigenbasis."""

    z: Tensor  # (n, k) centred features in the eigenbasis, and a column of ones
    target: Tensor  # (P, k) mean of z where the class is positive
    penalty: Tensor  # (P, k), 0 for the intercept
    scale: Tensor  # (P, k), 1 / sqrt of the approximate Hessian
    start: Tensor  # (P, k)

    @classmethod
    def make(cls, z: Tensor, variance: Tensor, y: Tensor, strengths: tuple[float, ...]) -> _Problems:
        n, k = len(z), z.shape[1] + 1
        z = torch.cat([z, z.new_ones(n, 1)], dim=1)
        share = y.mean(dim=0)
        spread = (share * (1 - share)).repeat(len(strengths))
        alpha = torch.tensor(strengths, dtype=z.dtype).repeat_interleave(len(share))
        penalty = alpha[:, None].expand(-1, k).clone()
        penalty[:, -1] = 0
        curvature = spread[:, None] * torch.cat([variance, variance.new_ones(1)]) + penalty
        scale = curvature.rsqrt()
        start = torch.zeros_like(scale)
        start[:, -1] = (share / (1 - share)).log().repeat(len(strengths)) / scale[:, -1]
        return cls(z, (y.T @ z / n).repeat(len(strengths), 1), penalty, scale, start)

    def __call__(self, v: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (p,) and gradient (p, k) of the problems ``which`` at v (p, k)."""
        u = v * self.scale[which]
        logits = self.z @ u.T
        target, shrink = self.target[which], self.penalty[which] * u
        loss = F.softplus(logits).mean(dim=0) - (u * target).sum(dim=1) + (shrink * u).sum(dim=1) / 2
        gradient = logits.sigmoid_().T @ self.z / len(self.z) - target + shrink
        return loss, gradient * self.scale[which]


def _eigenbasis(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Centred x (n, d) → x in its eigenbasis (n, r), the basis (d, r), and the variances (r,); r is its rank."""
    n, d = x.shape
    if n >= d:
        variance, basis = torch.linalg.eigh(x.T @ x / n)
    else:  # fewer records than features: the smaller matrix has the same eigenvalues
        variance, left = torch.linalg.eigh(x @ x.T / n)
        basis = x.T @ left / (n * variance.clamp_min(1e-300)).sqrt()
    keep = variance > 1e-12 * variance.max().clamp_min(1e-300)
    basis = basis[:, keep]
    return x @ basis, basis, variance[keep]


def _minimise(problem: _Problems) -> tuple[Tensor, Tensor]:
    """L-BFGS on every problem by itself, and which have converged: those leave the product."""
    v = problem.start.clone()
    solution = v.clone()
    done = torch.zeros(len(v), dtype=torch.bool)
    which = torch.arange(len(v))
    loss, gradient = problem(v, which)
    history: list[tuple[Tensor, Tensor, Tensor]] = []  # s, y, 1 / s·y, newest last
    step = 0
    while True:
        small = gradient.norm(dim=1) <= TOLERANCE
        if small.any() or step == MAX_ITERATIONS:
            solution[which] = v
            done[which[small]] = True
            active = ~small
            which, v, loss, gradient = which[active], v[active], loss[active], gradient[active]
            history = [(s[active], y[active], rho[active]) for s, y, rho in history]
        if not len(which) or step == MAX_ITERATIONS:
            break
        step += 1
        direction = _direction(gradient, history)
        slope = (direction * gradient).sum(dim=1)
        new_v, new_loss, new_gradient, stuck = _line_search(problem, which, v, loss, direction, slope)
        s, y = new_v - v, new_gradient - gradient
        product = (s * y).sum(dim=1)
        rho = torch.where(product > 0, 1 / product, 0.0)  # 0 makes the pair count for nothing
        history = [*history, (s, y, rho)][-MEMORY:]
        v, loss, gradient = new_v, new_loss, new_gradient
        if stuck.all():  # at the resolution of float64
            solution[which] = v
            break
    return solution * problem.scale, done


def _direction(gradient: Tensor, history: list[tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Two-loop recursion (Nocedal 1980) for all problems at once."""
    q = gradient.clone()
    alphas = []
    for s, y, rho in reversed(history):
        alpha = rho * (s * q).sum(dim=1)
        q -= alpha[:, None] * y
        alphas.append(alpha)
    if history:
        s, y, rho = history[-1]
        gamma = torch.where(rho > 0, 1 / (rho.clamp_min(1e-300) * (y * y).sum(dim=1).clamp_min(1e-300)), 1.0)
        q *= gamma[:, None]
    for (s, y, rho), alpha in zip(history, reversed(alphas), strict=True):
        q += (alpha - rho * (y * q).sum(dim=1))[:, None] * s
    return -q


def _line_search(
    problem: _Problems, which: Tensor, v: Tensor, loss: Tensor, direction: Tensor, slope: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Halve the step of each problem until its loss falls enough (Armijo); convexity gives the rest."""
    length = torch.ones_like(loss)
    new_v = v + direction
    new_loss, new_gradient = problem(new_v, which)
    # The slack is the rounding of the loss: near the minimum it cannot show a decrease.
    slack = 1e-14 * loss.abs().clamp_min(1)
    failed = new_loss > loss + 1e-4 * length * slope + slack
    for _ in range(30):
        if not failed.any():
            break
        length[failed] /= 2
        trial = v[failed] + length[failed, None] * direction[failed]
        trial_loss, trial_gradient = problem(trial, which[failed])
        new_v[failed], new_loss[failed], new_gradient[failed] = trial, trial_loss, trial_gradient
        failed = new_loss > loss + 1e-4 * length * slope + slack
    new_v[failed], new_loss[failed] = v[failed], loss[failed]
    if failed.any():
        new_gradient[failed] = problem(v[failed], which[failed])[1]
    return new_v, new_loss, new_gradient, failed
