"""Pictures for the report card: the learning curve and the confusion matrix, as PNG files.

Drawn on a canvas of their own, never through `pyplot`, whose global state and choice of window system have
no business in a library. The fonts that come with matplotlib have no Chinese: labels in other scripts are
drawn with an installed font that has them, and are numbered instead when there is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from inkstone.ground.errors import ConfigError, require
from inkstone.ground.files import whole_file
from inkstone.judge.facts import METRICS, CurvePoint, metric_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 20
_INK, _FAINT, _LOSS, _VALID = "#22262b", "#d7dade", "#3b6ea8", "#c2571a"
_CHINESE_FONTS = ("Noto Sans CJK SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "Microsoft YaHei")


def plot_learning_curve(points: Sequence[CurvePoint], path: str | Path) -> None:
    """Training loss over updates; each validation figure in a panel below it, its best value marked."""
    if not points:
        raise ConfigError("a learning curve needs at least one point.")
    names = list(dict.fromkeys(name for point in points for name in point.valid))
    figure = _figure(7.2, 2.6 + 1.9 * len(names))
    panels = figure.subplots(1 + len(names), 1, sharex=True, squeeze=False)[:, 0]
    steps = [point.step for point in points]
    few = "o" if len(points) == 1 else ""
    panels[0].plot(steps, [p.train_loss for p in points], color=_LOSS, linewidth=1.6, marker=few)
    panels[0].set_title("training loss", loc="left", fontsize=10, color=_INK)
    for axes, name in zip(panels[1:], names, strict=True):
        _validation_panel(axes, name, [(p.step, p.valid[name]) for p in points if name in p.valid])
    for axes in panels:
        _quiet(axes)
    minutes = points[-1].seconds / 60
    panels[-1].set_xlabel(f"updates ({minutes:.1f} minutes in all)", fontsize=9, color=_INK)
    panels[-1].xaxis.get_major_locator().set_params(integer=True)  # no halves of an update
    panels[-1].xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
    _save(figure, path)


def _validation_panel(axes: Axes, name: str, values: Sequence[tuple[int, float]]) -> None:
    share = METRICS.get(name.partition("/")[0], ("", False))[1]
    xs, ys = [step for step, _ in values], [100 * y if share else y for _, y in values]
    falling = "loss" in name or "perplexity" in name
    best = int(np.argmin(ys) if falling else np.argmax(ys))
    axes.plot(xs, ys, color=_VALID, linewidth=1.6, marker="o", markersize=3)
    axes.plot(
        [xs[best]], [ys[best]], marker="o", markersize=8, markerfacecolor="none", markeredgecolor=_VALID
    )
    unit = " (%)" if share else ""
    figure_text = f"{ys[best]:.1f}" if not falling else f"{ys[best]:.3g}"
    title = f"validation {metric_title(name)}{unit}: best {figure_text} at update {xs[best]:,}"
    axes.set_title(title, loc="left", fontsize=10, color=_INK)
    axes.margins(y=0.18)


def plot_confusion(counts_CC: NDArray[np.int64], labels: Sequence[str], path: str | Path) -> None:
    """The confusion matrix, rows (what it really is) shaded by share; for at most 20 classes."""
    if not 2 <= len(labels) <= MOST_CLASSES or counts_CC.shape != (len(labels), len(labels)):
        raise ConfigError(
            f"a confusion matrix is drawn for 2 to {MOST_CLASSES} classes; "
            f"this one has {len(labels)} labels and counts of shape {counts_CC.shape}."
        )
    from matplotlib import rc_context

    size = 2.4 + 0.42 * len(labels)
    names, family = _drawable(labels)
    with rc_context({"font.family": family}):
        figure = _figure(size + 0.2, size)
        axes = figure.subplots()
        shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
        axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
        for row, column in np.argwhere(counts_CC > 0):
            dark = shares_CC[row, column] > 0.5
            axes.text(
                column,
                row,
                f"{counts_CC[row, column]:,}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else _INK,
            )
        axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlabel("was taken for", fontsize=9, color=_INK)
        axes.set_ylabel("is really", fontsize=9, color=_INK)
        axes.tick_params(length=0, colors=_INK)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _save(figure, path)


def _drawable(labels: Sequence[str]) -> tuple[list[str], list[str]]:
    """The labels as they can be drawn, and the fonts to draw them with."""
    if all(label.isascii() for label in labels):
        return list(labels), ["DejaVu Sans"]
    from matplotlib import font_manager

    installed = set(font_manager.get_font_names())
    fonts = [name for name in _CHINESE_FONTS if name in installed]
    if fonts:
        return list(labels), [*fonts[:1], "DejaVu Sans"]
    return [label if label.isascii() else f"class {number}" for number, label in enumerate(labels, 1)], [
        "DejaVu Sans"
    ]


def _figure(width: float, height: float) -> Figure:
    require("matplotlib", "drawing the learning curve", "train")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=120, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _quiet(axes: Any) -> None:
    axes.grid(axis="y", color=_FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=_INK, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(_FAINT)


def _save(figure: Figure, path: str | Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    with whole_file(path) as out:
        out.write(picture.getvalue())
