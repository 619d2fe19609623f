"""The figures of a benchmark, each as PNG and SVG, from ``results.json`` and the maps of the embeddings.

Colours are those of Okabe and Ito, which colour-blind readers can tell apart; markers repeat what colours say.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deri.evaluation.features import Features, unit
from deri.evaluation.options import Way, way_name, ways_to_score
from deri.evaluation.published import TITLES, published_rows
from deri.evaluation.task import Task
from deri.files import MADE_AGAIN, atomic_path, digest_of
from deri.store.npy import read_arrays, write_arrays

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222", "#8c564b", "#b8b000")
_MARKERS = "osD^vP*X<"
_SOFT = "#6b6b78"
_STYLES = {
    "model": (COLOURS, _MARKERS),
    "random": (("#9a9a9a", "#c4c4c4", "#707070"), "x"),
    "classical": (("#a6844a",), "d"),
}
"""Colours and markers by the kind of a row."""
LARGEST = 9
"""Classes shown in a map of embeddings."""
_MOST_POINTS = 1500
_FEWEST_POINTS = 10


def draw_all(results: dict[str, Any], maps: list[dict[str, Any]], folder: Path) -> Iterator[Path]:
    """Draw every figure there is something to show in; yields the files written."""
    for task in results["tasks"]:
        cells = [cell for cell in results["cells"] if cell["task"] == task]
        stem = re.sub(r"[^A-Za-z0-9.]+", "-", task)
        if any(cell["macro_auroc"]["value"] is not None for cell in cells):
            yield from save(bars(results, task), folder / f"{stem}-auroc")
        if any(cell["calibration"] for cell in cells):
            yield from save(reliability_diagram(results, task), folder / f"{stem}-reliability")
        order = [about["name"] for about in results["models"]]
        own = sorted((one for one in maps if one["task"] == task), key=lambda one: order.index(one["model"]))
        for method in dict.fromkeys(one["method"] for one in own):
            figure = embedding_maps([one for one in own if one["method"] == method], task)
            yield from save(figure, folder / f"{stem}-{method.replace('-', '').lower()}")
    if len(results["options"]["fractions"]) > 1 and any(cell["mode"] == "probe" for cell in results["cells"]):
        yield from save(learning_curves(results), folder / "learning-curves")


def save(figure: Figure, stem: Path, *, tight: bool = True) -> Iterator[Path]:
    """Write ``stem``.png (200 dpi) and ``stem``.svg; equal figures give equal files.

    ``tight`` cuts empty margins off; without it the paper keeps its size.
    """
    from matplotlib import rc_context

    for suffix in (".png", ".svg"):
        path = stem.with_name(stem.name + suffix)
        with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "deri"}):
            metadata = {"Date": None} if suffix == ".svg" else {"Software": None}
            figure.savefig(
                temporary, format=suffix[1:], dpi=200, metadata=metadata, bbox_inches="tight" if tight else None
            )
        yield path


def _styles(results: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Colour and marker by row: models in colours, the random and classical rows in grey and brown."""
    styles = {}
    seen: Counter[str] = Counter()
    for about in results["models"]:
        colours, markers = _STYLES[about["kind"]]
        k = seen[about["kind"]]
        styles[about["name"]] = (colours[k % len(colours)], markers[k % len(markers)])
        seen[about["kind"]] += 1
    return styles


def _new(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _panels(n: int, size: tuple[float, float], margin: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """``n`` panels of a size in up to three columns, with a margin around all of them (inches)."""
    columns = min(3, n)
    rows = -(-n // columns)
    figure, panels = _new(size[0] * columns + margin[0], size[1] * rows + margin[1], rows, columns)
    for axes in panels[n:]:
        axes.set_visible(False)
    return figure, panels[:n]


def bars(results: dict[str, Any], task: str) -> Figure:
    """Macro AUROC of a task: one group per way of scoring, a bar per row with its interval, published rows as marks."""
    cells = {(c["model"], c["mode"], c["fraction"]): c for c in results["cells"] if c["task"] == task}
    there = {key[1:] for key in cells}
    ways = [way for way in ways_to_score(sorted(results["options"]["fractions"])) if way in there]
    styles = _styles(results)
    figure, (axes,) = _new(2.2 + 0.36 * len(ways) * (len(styles) + 1), 3.8)
    width = 0.8 / len(styles)
    low = 0.5
    for i, (name, (colour, _)) in enumerate(styles.items()):
        label: str | None = name  # of the first bar alone
        for k, way in enumerate(ways):
            value, ci = _macro_auroc(cells.get((name, *way)))
            if value is None:
                continue
            x = k + (i - (len(styles) - 1) / 2) * width
            axes.bar(x, value, 0.92 * width, color=colour, label=label)
            label = None
            if ci:
                axes.vlines(x, ci[0], ci[1], colors="black", linewidth=1)
                axes.hlines(ci, x - 0.2 * width, x + 0.2 * width, colors="black", linewidth=1)
            low = min(low, value, *(ci or [value]))
    named = [_mark_published(axes, k, task, way) for k, way in enumerate(ways)]
    axes.axhline(0.5, color=_SOFT, linewidth=0.6, zorder=0)
    axes.set_xticks(range(len(ways)), [way_name(*way) for way in ways])
    axes.set_ylim(np.floor(10 * low) / 10 if low < 0.5 else 0.4, 1.0)
    axes.set_xlim(-0.55, len(ways) - 0.45)
    axes.set_ylabel("macro AUROC, 95 % CI")
    some = next(iter(cells.values()))
    axes.set_title(
        f"{TITLES.get(task, task)}: {some['n_classes_scored']} of {some['n_classes']} classes, {some['n']:,} test "
        f"records of {some['n_patients']:,} patients",
        fontsize=9,
        loc="left",
    )
    figure.legend(loc="outside lower left", fontsize=7.5, frameon=False, ncols=min(3, len(styles)))
    if any(named):
        figure.supxlabel("† published, on the real data set in full", fontsize=7, color=_SOFT, x=0.99, ha="right")
    return figure


def _macro_auroc(cell: dict[str, Any] | None) -> tuple[float | None, list[float] | None]:
    return (None, None) if cell is None else (cell["macro_auroc"]["value"], cell["macro_auroc"]["ci"])


def _mark_published(axes: Axes, k: int, task: str, way: Way) -> bool:
    """Mark the published figures of a task in group ``k``; whether there are any."""
    published = sorted((row.values[task] / 100, row.model) for row in published_rows(*way) if task in row.values)
    for i, (value, model) in enumerate(published):
        above = i == len(published) - 1  # of two, the names stand above the higher and below the lower
        colour = "black" if above else _SOFT
        axes.hlines(value, k - 0.44, k + 0.44, colors=colour, linewidth=1, linestyles="dashed")
        at = (k - 0.44, value + (0.006 if above else -0.006))
        axes.annotate(f"{model} †", at, fontsize=6.5, color=colour, va="bottom" if above else "top")
    return bool(published)


def learning_curves(results: dict[str, Any]) -> Figure:
    """Macro AUROC over the fraction of labels: one panel per task, bands are intervals, zero-shot a dotted line."""
    scored = [c for c in results["cells"] if _macro_auroc(c)[0] is not None]
    tasks = [t for t in results["tasks"] if any(c["task"] == t and c["mode"] == "probe" for c in results["cells"])]
    figure, panels = _panels(len(tasks), (3.1, 2.7), (0.6, 0.9))
    ticks = sorted(results["options"]["fractions"])
    for axes, task in zip(panels, tasks, strict=True):
        for name, (colour, marker) in _styles(results).items():
            own = [c for c in scored if c["model"] == name and c["task"] == task]
            points = sorted((c["fraction"], *_macro_auroc(c)) for c in own if c["mode"] == "probe")
            if points:
                x, y, ci = zip(*points, strict=True)
                axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1.3, label=name)
                if all(ci):
                    low, high = zip(*ci, strict=True)
                    axes.fill_between(x, low, high, color=colour, alpha=0.13)
            for c in own:
                if c["mode"] == "zero-shot" and c["kind"] == "model":
                    axes.axhline(c["macro_auroc"]["value"], color=colour, linestyle=":", linewidth=1)
        axes.set_xscale("log")
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_title(TITLES.get(task, task), fontsize=9, loc="left")
    figure.supxlabel("labels of the training split used, %  (dotted: zero-shot; bands: 95 % CI)", fontsize=8)
    figure.supylabel("macro AUROC", fontsize=8)
    handles = {str(h.get_label()): h for one in panels for h in one.get_legend_handles_labels()[0]}
    figure.legend(list(handles.values()), list(handles), loc="outside upper left", fontsize=7.5, frameon=False, ncols=3)
    return figure


def reliability_diagram(results: dict[str, Any], task: str) -> Figure:
    """Share of positives over predicted probability, of the probes on most labels; areas of dots are counts."""
    cells = [c for c in results["cells"] if c["task"] == task and c["calibration"]]
    largest = max(c["fraction"] for c in cells)
    figure, (axes,) = _new(4.2, 4.4)
    styles = _styles(results)
    axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=0.8)
    for cell in (c for c in cells if c["fraction"] == largest):
        rows = [row for row in cell["calibration"]["reliability"] if row["n"]]
        colour, marker = styles[cell["model"]]
        x, y = [r["predicted"] for r in rows], [r["observed"] for r in rows]
        total = sum(r["n"] for r in rows)
        axes.plot(x, y, color=colour, linewidth=1, alpha=0.7)
        area = [8 + 90 * np.sqrt(r["n"] / total) for r in rows]
        error = cell["calibration"]["pooled_ece"]
        axes.scatter(x, y, area, color=colour, marker=marker, label=f"{cell['model']}: ECE {error:.3f}")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xlabel("predicted probability (mean of the bin)")
    axes.set_ylabel("share of positives")
    axes.set_title(f"{TITLES.get(task, task)}, probe {largest:g} %, all classes together", fontsize=9, loc="left")
    figure.legend(loc="outside lower left", fontsize=7.5, frameon=False)
    return figure


def map_methods() -> tuple[str, ...]:
    """The methods by which maps are drawn: t-SNE, and UMAP where umap-learn is installed."""
    return ("t-SNE", "UMAP") if find_spec("umap") else ("t-SNE",)


def embedding_map(
    features: Features, task: Task, folder: Path, split: str = "test", method: str = "t-SNE", *, seed: int = 0
) -> dict[str, Any] | None:
    """A map of the embeddings of a split of a task in two dimensions; None with too few records.

    Records with exactly one class, of the nine largest classes among them; at most 1,500, drawn at random. Embeddings
    have unit length, as retrieval compares them.

    Returns:
        ``method``, ``points`` (n, 2), ``classes`` (their names) and ``class_index`` (n,) the class of each point.
    """
    rows, class_index, names = single_label_rows(task, split)
    if len(rows) < _FEWEST_POINTS:
        return None
    if len(rows) > _MOST_POINTS:
        kept = np.sort(np.random.default_rng(seed).permutation(len(rows))[:_MOST_POINTS])
        rows, class_index = rows[kept], class_index[kept]
    key = digest_of([features.key, rows.tolist(), seed, method])
    file = folder / f"map-{key}.npz"
    if file.is_file():
        points = read_arrays(file, MADE_AGAIN)["points"]
    else:
        x = unit(features.rows(rows).astype(np.float64))
        if method == "UMAP":
            from umap import UMAP  # type: ignore[import-not-found, unused-ignore]

            points = UMAP(n_neighbors=min(15, len(rows) - 1), metric="cosine", random_state=seed).fit_transform(x)
        else:
            from sklearn.manifold import TSNE

            perplexity = min(30.0, (len(rows) - 1) / 3)
            points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(x)
        write_arrays(file, points=points)
    return {"method": method, "points": points, "classes": names, "class_index": class_index}


def single_label_rows(task: Task, split: str, largest: int = LARGEST) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Rows with exactly one class, of the ``largest`` classes among them; the class of each; the names, largest first.

    Equal counts are in the order of the task.
    """
    rows = task.store.task_rows(task.name, split)
    names, labels = task.store.labels(task.name, rows)
    single = labels.sum(axis=1) == 1
    counts = labels[single].sum(axis=0, dtype=np.int64)
    order = [int(c) for c in np.argsort(-counts, kind="stable")[:largest] if counts[c]]
    of = labels.argmax(axis=1)
    kept = np.flatnonzero(single & np.isin(of, order))
    class_index = np.array([order.index(int(c)) for c in of[kept]], np.int64)
    return rows[kept], class_index, [names[c] for c in order]


def embedding_maps(maps: list[dict[str, Any]], task: str) -> Figure:
    """The maps of a task, one panel per model, points coloured by class."""
    figure, panels = _panels(len(maps), (3.4, 3.4), (0, 0.8))
    for axes, one in zip(panels, maps, strict=True):
        for c, name in enumerate(one["classes"]):
            own = one["points"][one["class_index"] == c]
            axes.scatter(
                own[:, 0], own[:, 1], 14, color=COLOURS[c], marker=_MARKERS[c], linewidths=0, alpha=0.75,
                label=f"{name} ({len(own)})",
            )  # fmt: skip
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.set_title(one["model"], fontsize=9)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", fontsize=7.5, frameon=False, ncols=5, markerscale=1.6)
    title = f"{TITLES.get(task, task)}: {maps[0]['method']} of embeddings, records of one class"
    figure.suptitle(title, fontsize=9, x=0.01, ha="left")
    return figure
