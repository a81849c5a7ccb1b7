"""The bench: ours, the least that anyone could take, and what a user would otherwise take, in one run, on this machine.

    python -m tests.bench.run [--json FILE] [--rows a,b] [--scale 0.1]

Figures are information: no row fails for being slow. A row that this machine cannot run says why. Exit code 1 only
where a row crashed.
"""

import sys
import time
import traceback
from pathlib import Path
from typing import Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from streams.telemetry import set_up_logging
from tests.bench import (
    drifting,
    folding,
    kafka_log,
    member_deltas,
    programming_pods,
    to_kernel,
    watch_decoding,
    workloads,
)
from tests.bench.measuring import Figure, Row, Unavailable, absent

ROWS: Final[dict[str, Row]] = {
    "decode": watch_decoding.decode,
    "ingest": watch_decoding.ingest,
    "kafka-produce": kafka_log.produce,
    "kafka-consume": kafka_log.consume,
    "fold": folding.fold,
    "fold-small": folding.fold_small,
    "fold-large": folding.fold_large,
    "per-pod": folding.fold_per_pod,
    "address-change": folding.address_change,
    "label-change": folding.label_change,
    **member_deltas.ROWS,
    "node-cold-start": programming_pods.cold_start,
    "pod-patches": programming_pods.patches,
    "event-to-kernel-embedded": to_kernel.embedded,
    "event-to-kernel-kafka": to_kernel.kafka,
    "drift-to-healed": drifting.drift_to_healed,
    "drift-to-healed-set": drifting.drift_of_set_to_healed,
}


WIDTH: Final = 160
"""Columns where nobody says how many there are."""


def measure(rows: list[str], *, scale: float, console: Console) -> tuple[list[Figure], list[str]]:
    """Run *rows* in turn, saying so on *console*; return all figures, and the rows that crashed."""
    figures: list[Figure] = []
    crashed: list[str] = []
    for number, row in enumerate(rows, start=1):
        began = time.perf_counter()
        console.print(f"[{number}/{len(rows)}] {row}", end=" ", highlight=False, markup=False)
        try:
            found = ROWS[row](scale)
        except Unavailable as reason:
            found = [absent(row, reason.reason)]
        except Exception:  # noqa: BLE001  the top: the other rows are still worth having
            traceback.print_exc()
            found = [absent(row, "crashed")]
            crashed.append(row)
        figures += found
        console.print(f"{time.perf_counter() - began:.1f} s", highlight=False)
    return figures, crashed


def table(figures: list[Figure]) -> Table:
    """*figures* for people."""
    made = Table("row", "ours", "limit", "otherwise", "by", "ratio", "goal", "holds", box=None, pad_edge=False)
    for column in made.columns[1:4]:
        column.justify = "right"
    for each in figures:
        if each.holds is None:
            made.add_row(each.row, "-", "-", "-", each.note, "-", "", "-")
            continue
        made.add_row(
            each.row,
            f"{_number(each.ours)} {each.unit}",
            _number(each.limit),
            _number(each.alternative),
            each.alternative_name,
            _number(each.ratio),
            each.goal,
            "yes" if each.holds else "no",
        )
        for name, value in each.others.items():
            made.add_row("", "", "", _number(value), name)
    return made


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Keep the figures in this file.")
@click.option("--rows", default="", help=f"Which, separated by commas. Default: all of {', '.join(ROWS)}.")
@click.option("--scale", default=1.0, show_default=True, help="Size of the workloads; the goals are about 1.")
def main(file: Path | None, rows: str, scale: float) -> None:
    """Measure, and say how it compares."""
    chosen = [name.strip() for name in rows.split(",") if name.strip()] or list(ROWS)
    if unknown := [name for name in chosen if name not in ROWS]:
        raise click.BadParameter(f"no such row: {', '.join(unknown)}; there are {', '.join(ROWS)}", param_hint="--rows")
    console = Console(stderr=True)
    console.print(f"workloads from seed {workloads.SEED}, scale {scale:g}", highlight=False)
    figures, crashed = measure(chosen, scale=scale, console=console)
    Console(width=WIDTH if not sys.stdout.isatty() else None).print(table(figures))
    if file is not None:
        file.write_bytes(msgspec.json.format(msgspec.json.encode(figures)) + b"\n")
    if crashed:
        sys.exit(f"crashed: {', '.join(crashed)}")


if __name__ == "__main__":
    set_up_logging(level="warning")
    main()
