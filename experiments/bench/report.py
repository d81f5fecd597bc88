"""The report of a result: Markdown tables, one picture, and the block in docs/performance.md.

Works on the plain values of `result.json` and runs no model, so that an old result can be reported again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from experiments import pages
from experiments.bench.goals import goal_rows
from experiments.bench.names import COMPILED, DOCUMENTED, EXACT, LIMIT, SPOTON, TUNED
from experiments.bench.ratios import Spread, median_seconds, pairwise_ratio

_COLOURS = {DOCUMENTED: "#b0b0b0", TUNED: "#6f8fb0", SPOTON: "#d1662c", COMPILED: "#8c3a0f", LIMIT: "#202020"}


def tables(result: dict[str, Any]) -> str:
    """Returns everything except the picture, as Markdown."""
    parts = []
    for model, work in dict.fromkeys((c["model"], c["work"]) for c in result["configurations"]):
        chosen = [c for c in result["configurations"] if (c["model"], c["work"]) == (model, work)]
        parts.append(f"**{model}, {work}**\n\n{_speed_table(chosen)}")
    if result["memory"]:
        parts.append(
            f"**Peak memory of a training step above the model**\n\n{_memory_table(result['memory'])}"
        )
    goals = goal_rows(result)
    if goals:
        sizes = " / ".join(dict.fromkeys(str(c["batch_size"]) for c in result["configurations"]))
        parts.insert(
            0, "**Goals**\n\n" + _markdown(["goal", "asked", f"found (batch {sizes})", "reached"], goals)
        )
    return "\n\n".join([*parts, *_agreement(result), *_payback(result), *result["notes"]])


def machine_text(result: dict[str, Any]) -> str:
    """Returns a text on what the numbers were measured on, and how often."""
    m, texts = result["machine"], result["texts"]
    versions = ", ".join(f"{name} {version}" for name, version in m["versions"].items())
    rounds = max((len(c["rounds"]) for c in result["configurations"]), default=0)
    dtypes = {name: kind for c in result["configurations"] for name, kind in c["dtypes"].items()}
    return "\n".join(
        [
            f"- Processor: {m['processor']}, {m['cores']} cores, {m['threads']} threads "
            f"({', '.join(m['flags']) or 'flags unknown'}); {m['memory_gb']} GB; before the start, processors busy "
            f"with something else: {m['load_before']}.",
            f"- Memory allocation: {m['allocator']}, for all arms; peak memory without that.",
            "- Types: " + ", ".join(f"{name} {kind}" for name, kind in dtypes.items() if name != EXACT) + ".",
            f"- Versions: {versions}.",
            f"- Texts: {texts['task']}, {texts['tokens_median']:g} tokens (median; mean {texts['tokens_mean']}, "
            f"longest {texts['tokens_longest']}). {rounds} rounds, {result['date']}.",
        ]
    )


def write_picture(result: dict[str, Any], path: Path) -> None:
    """Draws bars of examples per second, one panel for training and one for scoring."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    works = list(dict.fromkeys(c["work"] for c in result["configurations"]))
    figure, panels = pyplot.subplots(1, len(works), figsize=(7.4 * len(works), 4.2), squeeze=False)
    for panel, work in zip(panels[0], works, strict=True):
        chosen = [c for c in result["configurations"] if c["work"] == work]
        names = list(dict.fromkeys(name for c in chosen for name in c["rounds"][0]))
        width = 0.8 / len(names)
        for at, name in enumerate(names):
            places = [k + at * width for k, c in enumerate(chosen) if name in c["rounds"][0]]
            speeds = [
                c["batch_size"] / median_seconds(c["rounds"], name) for c in chosen if name in c["rounds"][0]
            ]
            bars = panel.bar(places, speeds, width, label=name, color=_COLOURS.get(name))
            panel.bar_label(bars, fmt="%.3g", fontsize=6, padding=1)
        panel.set_yscale("log")  # both a tenth and a half are visible
        panel.yaxis.set_major_formatter("{x:g}")
        panel.set_xticks(
            [k + 0.4 - width / 2 for k in range(len(chosen))],
            [f"{c['model'].split()[0]}\nP={c['length']}, batch {c['batch_size']}" for c in chosen],
            fontsize=7,
        )
        panel.set_title(work)
        panel.set_ylabel("examples a second (logarithmic)")
        panel.spines[["top", "right"]].set_visible(False)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, fontsize=8, frameon=False, loc="lower center", ncols=len(labels))
    figure.tight_layout(rect=(0, 0.06, 1, 1))  # room for the legend below
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def filled(page: str, block: str) -> str:
    """Returns a page with the text between its two markers replaced.

    Raises:
        ValueError: The page does not have the markers.
    """
    return pages.filled(page, "bench", block)


def _agreement(result: dict[str, Any]) -> list[str]:
    """Returns the largest difference of the two float32 losses, which no rounding of weights can hide."""
    pairs = [
        (c["losses"][EXACT], c["losses"][DOCUMENTED])
        for c in result["configurations"]
        if EXACT in c["losses"]
    ]
    if not pairs:
        return []
    apart = max(abs(found - expected) / expected for found, expected in pairs)
    return [
        f"In float32 the losses of spoton and of {DOCUMENTED} differ by {apart:.0e} of their value at most; "
        "in bfloat16 rounding comes on top."
    ]


def _payback(result: dict[str, Any]) -> list[str]:
    """Returns after how many steps compiling pays off, from the first block in which it compiled."""
    for c in result["configurations"]:
        warm_up = c.get("warm_up_seconds", {}).get(COMPILED)
        if warm_up is not None and c["work"] == "training":
            plain, compiled = (median_seconds(c["rounds"], name) for name in (SPOTON, COMPILED))
            if compiled >= plain:
                return [f"Compiling took {warm_up:.0f} s and made steps no faster here."]
            steps = warm_up / (plain - compiled)
            return [
                f"Compiling took {warm_up:.0f} s, which its faster steps win back after {steps:.0f} steps "
                f"(P={c['length']}, batch {c['batch_size']})."
            ]
    return []


def _speed_table(configurations: Sequence[dict[str, Any]]) -> str:
    """Returns one row for each arm of each configuration; leaves out columns that are empty."""
    against = [
        name for name in (DOCUMENTED, TUNED) if any(name in r for c in configurations for r in c["rounds"])
    ]
    limited = any(LIMIT in r for c in configurations for r in c["rounds"])
    head = ["P", "batch", "arm", "seconds", "CPU seconds", *(f"times {name}" for name in against)]
    rows = []
    for c in configurations:
        for name in c["rounds"][0]:
            row = [str(c["length"]), str(c["batch_size"]), name]
            row += [_seconds(median_seconds(c["rounds"], name, clock)) for clock in ("wall", "cpu")]
            row += [
                _ratio(pairwise_ratio(c["rounds"], slow, name)) if slow != name else "1" for slow in against
            ]
            if limited:
                share = pairwise_ratio(c["rounds"], LIMIT, name)
                row.append(f"{share.median:.0%}" if share else "")
            row.append(f"{c['losses'][name]:.4f}" if name in c["losses"] else "")
            rows.append(row)
    return _markdown([*head, *(["of the limit"] if limited else []), "loss"], rows)


def _memory_table(memory: Sequence[dict[str, Any]]) -> str:
    rows = []
    for entry in memory:
        found = entry["bytes"]
        for name, size in found.items():
            shares = [f"{size / found[slow]:.2f}" if slow in found else "" for slow in (DOCUMENTED, TUNED)]
            rows.append(
                [str(entry["length"]), str(entry["batch_size"]), name, f"{size / 2**20:.0f}", *shares]
            )
    return _markdown(["P", "batch", "arm", "MiB", f"of {DOCUMENTED}", f"of {TUNED}"], rows)


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 10 else f"{value:.1f}"


def _ratio(spread: Spread | None) -> str:
    return f"**{spread.median:.2f}** ({spread.low:.2f}-{spread.high:.2f})" if spread else ""
