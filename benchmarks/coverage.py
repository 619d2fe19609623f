"""How often intervals hold the truth, and how often equal models differ with p < 0.05. Prints one JSON object.

python benchmarks/coverage.py [--simulations 1000] [--records 380] [--only auroc,difference,macro,macro_difference,f1]
                              [--bootstrap 0] [--quick]

Scores and labels are simulated by a Gaussian copula, so that classes, records of a patient, runs and models correlate,
with a known AUROC: binormal scores, exponential ones (Hanley & McNeil's: some positives rank very low), and exponential
ones turned round. F1: findings that 0.7 of n texts hold on average and upwards, hits and false calls with known rates.
``--bootstrap`` draws of patients also measure the percentile bootstrap, which leaves a class or finding out of the
draws that lack it.

``below`` and ``above``: share of simulations with the truth below or above the interval; ``null``: without an interval.
Each row has its own seed.
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr, ndtri

from deri.evaluation.contributions import auroc_contributions, f1_contributions
from deri.evaluation.intervals import (
    Difference,
    Estimate,
    auroc_intervals,
    macro_interval,
    paired_differences,
    paired_macro_difference,
)

CLASS_CORRELATION, PATIENT_CORRELATION, RUN_CORRELATION = 0.3, 0.5, 0.8


@dataclass
class Tally:
    """Counts over simulations of one row."""

    n: int = 0
    null: int = 0
    below: int = 0
    above: int = 0
    significant: int = 0
    width: list[float] = field(default_factory=list)

    def add(self, ci: tuple[float, float] | None, truth: float, p: float | None = None) -> None:
        self.n += 1
        if ci is None:
            self.null += 1
            return
        self.below += truth < ci[0]
        self.above += truth > ci[1]
        self.significant += p is not None and p < 0.05
        self.width.append(ci[1] - ci[0])

    def row(self, tested: bool) -> dict[str, float]:
        n = max(self.n - self.null, 1)
        found = {
            "cover": 1 - (self.below + self.above) / n,
            "below": self.below / n,
            "above": self.above / n,
            "width": float(np.mean(self.width)) if self.width else float("nan"),
            "null": self.null / self.n,
        }
        return {k: round(v, 4) for k, v in (found | ({"p<0.05": self.significant / n} if tested else {})).items()}


@dataclass(frozen=True)
class Setting:
    """What is simulated: ``shares`` of positives and ``aurocs`` (models, classes)."""

    n: int
    shares: np.ndarray
    aurocs: np.ndarray
    kind: str = "binormal"
    per_patient: int = 1
    runs: int = 1
    fixed: bool = False
    alike: float = 0.6

    @property
    def patients(self) -> np.ndarray:
        return np.arange(self.n) % (self.n // self.per_patient)

    def noise(self, rng: np.random.Generator, *lead: int) -> np.ndarray:
        """Standard normal (*lead, n, classes), correlated over classes and within patients."""
        classes = len(self.shares)

        def mixed(k: int) -> np.ndarray:
            common = CLASS_CORRELATION**0.5 * rng.normal(size=(*lead, k, 1))
            return common + (1 - CLASS_CORRELATION) ** 0.5 * rng.normal(size=(*lead, k, classes))

        if self.per_patient == 1:
            return mixed(self.n)
        of_patient = mixed(self.n // self.per_patient)[..., self.patients, :]
        return PATIENT_CORRELATION**0.5 * of_patient + (1 - PATIENT_CORRELATION) ** 0.5 * mixed(self.n)

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """Labels (n, classes) and scores (runs, n, classes) of every model."""
        latent = self.noise(rng)
        if self.fixed:
            ranks = (-latent).argsort(axis=0).argsort(axis=0)
            labels = ranks < np.rint(self.shares * self.n)
        else:
            labels = latent > ndtri(1 - self.shares)
        base = self.noise(rng)
        scores = []
        for aurocs in self.aurocs:
            own = base
            if len(self.aurocs) > 1:
                own = self.alike**0.5 * base + (1 - self.alike) ** 0.5 * self.noise(rng)
            runs = own[None]
            if self.runs > 1:
                runs = RUN_CORRELATION**0.5 * own + (1 - RUN_CORRELATION) ** 0.5 * self.noise(rng, self.runs)
            scores.append(_scores(self.kind, runs, labels, aurocs))
        return labels, scores


def _scores(kind: str, noise: np.ndarray, labels: np.ndarray, aurocs: np.ndarray) -> np.ndarray:
    if kind == "binormal":
        return noise + labels * 2**0.5 * ndtri(aurocs)
    rate = (1 - aurocs) / aurocs
    if kind == "exponential":
        return -np.log1p(-ndtr(noise)) / np.where(labels, rate, 1)
    return np.log1p(-ndtr(noise)) / np.where(labels, 1, rate)


def macro_aurocs(mean: float, classes: int, seed: int = 1) -> np.ndarray:
    return mean + 0.04 * np.random.default_rng(seed).permutation(np.linspace(-1, 1, classes))


def percentiles(drawn: np.ndarray) -> tuple[tuple[float, float] | None, float | None]:
    """Percentile interval and p of bootstrap draws, as up to version 1 of the results."""
    drawn = drawn[np.isfinite(drawn)]
    if not len(drawn):
        return None, None
    low, high = np.percentile(drawn, [2.5, 97.5])
    tail = 1 + min(int((drawn <= 0).sum()), int((drawn >= 0).sum()))
    return (float(low), float(high)), min(1.0, 2 * tail / (len(drawn) + 1))


def weights(patients: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
    k = int(patients.max()) + 1
    return rng.multinomial(k, np.full(k, 1 / k), size=draws)[:, patients]


def drawn_aurocs(labels: np.ndarray, scores: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """AUROC of every class in every draw, mean over runs: (draws, classes); scores without ties."""
    out = np.zeros((len(drawn), labels.shape[1]))
    for c in range(labels.shape[1]):
        for run in scores:
            order = np.argsort(run[:, c])
            w, y = drawn[:, order].astype(float), labels[order, c]
            negative = w * ~y
            wins = (w * y * (np.cumsum(negative, axis=1) - negative / 2)).sum(axis=1)
            with np.errstate(invalid="ignore"):
                out[:, c] += wins / ((w * y).sum(axis=1) * negative.sum(axis=1)) / len(scores)
    return out


def auroc_settings(n: int, quick: bool) -> Iterator[tuple[str, Setting]]:
    for kind in ("binormal",) if quick else ("binormal", "exponential", "reversed"):
        for auroc in (0.8, 0.95):
            for m in (5,) if quick else (2, 3, 5, 10, 25, 50):
                yield (
                    f"{kind}, AUROC {auroc}, {m} positives",
                    Setting(n, np.array([m / n]), np.array([[auroc]]), kind, fixed=True),
                )
    for m in () if quick else (5, 10, 50):
        yield (
            f"binormal, AUROC 0.8, {m} positives, 4 records a patient",
            Setting(n, np.array([m / n]), np.array([[0.8]]), per_patient=4, fixed=True),
        )


def difference_settings(n: int, quick: bool) -> Iterator[tuple[str, Setting]]:
    for kind in ("binormal",) if quick else ("binormal", "exponential"):
        for pair in ((0.8, 0.8), (0.95, 0.95), (0.7, 0.85), (0.8, 0.95)):
            for m in (5,) if quick else (3, 5, 10, 50):
                yield (
                    f"{kind}, AUROC {pair[0]} and {pair[1]}, {m} positives",
                    Setting(n, np.array([m / n]), np.array(pair)[:, None], kind, fixed=True),
                )
    for m in () if quick else (5, 10, 50):
        yield (
            f"binormal, AUROC 0.8 and 0.8, {m} positives, 4 records a patient",
            Setting(n, np.array([m / n]), np.full((2, 1), 0.8), per_patient=4, fixed=True),
        )


def macro_settings(n: int, quick: bool, models: int) -> Iterator[tuple[str, Setting]]:
    def setting(mean: float, classes: int, highest: int = 150, **more: object) -> Setting:
        shares = np.geomspace(1, highest, classes) / n
        return Setting(n, shares, np.stack([macro_aurocs(mean, classes)] * models), **more)  # type: ignore[arg-type]

    for mean in (0.8,) if quick else (0.8, 0.95):
        for kind in ("binormal",) if quick else ("binormal", "exponential"):
            for classes in (5,) if quick else (5, 20):
                yield f"{kind}, mean {mean}, {classes} classes of 1–150 positives", setting(mean, classes, kind=kind)
        if quick:
            continue
        yield f"binormal, mean {mean}, 20 classes of 1–5 positives", setting(mean, 20, 5)
        yield f"binormal, mean {mean}, 20 classes, 4 records a patient", setting(mean, 20, per_patient=4)
        yield f"binormal, mean {mean}, 20 classes, 3 runs", setting(mean, 20, runs=3)
        if models == 2:
            aurocs = np.stack([macro_aurocs(mean, 20), macro_aurocs(mean - 0.04, 20, 2)])
            yield (
                f"binormal, means {mean} and {mean - 0.04:.2f}, 20 classes",
                Setting(n, np.geomspace(1, 150, 20) / n, aurocs),
            )


def one_model(setting: Setting, rng: np.random.Generator, draws: int) -> list[tuple]:
    labels, (scores,) = setting.draw(rng)
    of = auroc_contributions(labels, scores, setting.patients)
    single = len(setting.shares) == 1
    found: Estimate = auroc_intervals(of)[0] if single else macro_interval(of)
    truth = setting.aurocs[0][np.isfinite(of.mean)].mean()
    out = [("new", found.ci, truth, None)]
    if draws:
        drawn = drawn_aurocs(labels, scores, weights(setting.patients, draws, rng))
        out.append(("bootstrap", percentiles(np.nanmean(drawn, axis=1))[0], truth, None))
    return out


def two_models(setting: Setting, rng: np.random.Generator, draws: int) -> list[tuple]:
    labels, scores = setting.draw(rng)
    a, b = (auroc_contributions(labels, s, setting.patients) for s in scores)
    single = len(setting.shares) == 1
    found: Difference = paired_differences(a, b)[0] if single else paired_macro_difference(a, b)
    truth = (setting.aurocs[0] - setting.aurocs[1])[np.isfinite(a.mean)].mean()
    out = [("new", found.ci, truth, found.p)]
    if draws:
        drawn = weights(setting.patients, draws, rng)
        gap = np.subtract(*(drawn_aurocs(labels, s, drawn) for s in scores))
        ci, p = percentiles(np.nanmean(gap, axis=1))
        out.append(("bootstrap", ci, truth, p))
    return out


F1_SETTINGS = {
    "300 texts, 40 findings": (300, 40, 1, (0.7, 0.7), (0.3, 0.3)),
    "300 texts, 40 findings, unequal writers": (300, 40, 1, (0.8, 0.6), (0.2, 0.4)),
    "1,500 texts, 60 findings": (1500, 60, 1, (0.8, 0.8), (0.2, 0.2)),
    "1,500 texts, 60 findings, 3 texts a patient": (1500, 60, 3, (0.8, 0.8), (0.2, 0.2)),
}


def finding_f1(which: str, rng: np.random.Generator, draws: int) -> list[tuple]:
    n, findings, per_patient, recalls, false_calls = F1_SETTINGS[which]
    share = np.geomspace(0.7 / n, 0.3, findings)
    setting = Setting(n, share, np.full((1, findings), 0.5), per_patient=per_patient)
    truth = setting.noise(rng) > ndtri(1 - share)
    base = setting.noise(rng)
    contributions, population, calls = [], [], []
    for recall, extra in zip(recalls, false_calls, strict=True):
        noise = 0.5**0.5 * base + 0.5**0.5 * setting.noise(rng)
        called = noise > np.where(truth, ndtri(1 - recall), ndtri(1 - extra * share))
        calls.append(called)
        contributions.append(f1_contributions(truth, called, setting.patients))
        population.append(2 * recall * share / (share + recall * share + (1 - share) * extra * share))
    chosen = np.flatnonzero(truth.any(axis=0))
    one = macro_interval(contributions[0], chosen)
    two = paired_macro_difference(*contributions, chosen)
    value, gap = population[0][chosen].mean(), (population[0] - population[1])[chosen].mean()
    out = [("new", one.ci, value, None), ("new, difference", two.ci, gap, two.p)]
    if draws:
        drawn = weights(setting.patients, draws, rng).astype(float)
        with warnings.catch_warnings(), np.errstate(invalid="ignore"):
            warnings.simplefilter("ignore", RuntimeWarning)
            macros = [
                np.nanmean((2 * (drawn @ (truth & c)) / (drawn @ truth + drawn @ c))[:, chosen], axis=1) for c in calls
            ]
        out.append(("bootstrap", percentiles(macros[0])[0], value, None))
        out.append(("bootstrap, difference", *_swap(percentiles(macros[0] - macros[1]), gap)))
    return out


def _swap(found: tuple, truth: float) -> tuple:
    return found[0], truth, found[1]


def simulate(name: str, once: Callable[[np.random.Generator], list[tuple]], simulations: int, tested: bool) -> dict:
    rng = np.random.default_rng([ord(ch) for ch in name])
    tallies: dict[str, Tally] = {}
    for _ in range(simulations):
        for method, ci, truth, p in once(rng):
            tallies.setdefault(method, Tally()).add(ci, truth, p)
    return {method: tally.row(tested or "difference" in method) for method, tally in tallies.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--records", type=int, default=380)
    parser.add_argument("--bootstrap", type=int, default=0, help="draws of the percentile bootstrap beside it")
    parser.add_argument("--only", default="auroc,difference,macro,macro_difference,f1")
    parser.add_argument("--quick", action="store_true", help="a few rows of 20 simulations")
    args = parser.parse_args()
    simulations = 20 if args.quick else args.simulations
    n, quick, draws = args.records, args.quick, args.bootstrap
    settings = {
        "auroc": (one_model, lambda: auroc_settings(n, quick)),
        "difference": (two_models, lambda: difference_settings(n, quick)),
        "macro": (one_model, lambda: macro_settings(n, quick, 1)),
        "macro_difference": (two_models, lambda: macro_settings(n, quick, 2)),
        "f1": (finding_f1, lambda: ((name, name) for name in list(F1_SETTINGS)[: 1 if quick else None])),
    }
    tables = {}
    warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
    for table in args.only.split(","):
        measure, rows = settings[table]
        tables[table] = {
            name: simulate(name, lambda rng, s=setting, m=measure: m(s, rng, draws), simulations, "difference" in table)
            for name, setting in rows()
        }
    print(json.dumps({"records": n, "simulations": simulations, "bootstrap_draws": draws, "tables": tables}, indent=1))


if __name__ == "__main__":
    main()
