"""Table of contents of the plugin's metrics: every figure with its name, help and where it is read.

Needs nothing but the standard library: `python figures.py` prints the table as JSON, from which `docs/metrics.md` is
made. Names as in the embedded engine where the meaning is the same.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .steward import Steward

PREFIX = "crystalkv_engine_"
#: Of every figure: the model's name, and the data-parallel rank as vLLM's own metrics have it.
LABELS = ("model_name", "engine")


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True)
class Figure:
    """A metric of an active plugin, read at scrape time under the steward's lock, so it must cost next to nothing."""

    #: Without prefix, and without the `_total` of counters.
    name: str
    kind: Kind
    help: str
    read: Callable[["Steward"], float]


@dataclass(frozen=True)
class SplitFigure:
    """A counter with a value for each value of one more label."""

    name: str
    label: str
    help: str
    read: Callable[["Steward"], Mapping[str, float]]
    kind: Kind = Kind.COUNTER


#: Said whether or not the plugin is active.
ACTIVE = ("plugin_active", "1 while the plugin may evict; 0: stock vLLM.")
REFUSED = ("refused", "feature", "Features that keep the plugin inactive.")

FIGURES = (
    Figure("stream_up", Kind.GAUGE, "1 while the policy service is connected.", lambda s: int(s.attached)),
    Figure("steps", Kind.COUNTER, "Scheduling steps.", lambda s: s.step),
    Figure("kv_blocks", Kind.GAUGE, "KV blocks in the pool.", lambda s: s.total_blocks),
    Figure("kv_blocks_free", Kind.GAUGE, "KV blocks that nobody uses.", lambda s: s.free_blocks),
    Figure("kv_block_bytes", Kind.GAUGE, "Bytes of keys and values in a KV block.", lambda s: s.block_bytes),
    Figure("blocks_evicted", Kind.COUNTER, "KV blocks evicted or freed by merges.", lambda s: s.plans.evicted_blocks),
    Figure("merges", Kind.COUNTER, "Merges of KV blocks.", lambda s: s.plans.merges),
    Figure("preemptions", Kind.COUNTER, "Preemptions of clients' requests.", lambda s: s.preemptions),
    Figure("plans", Kind.COUNTER, "Plans received.", lambda s: s.plans.applied),
    Figure("missed_steps", Kind.COUNTER, "Steps without the plan they needed.", lambda s: s.missed_steps),
    Figure("dropped_reports", Kind.COUNTER, "Reports dropped: slow stream.", lambda s: s.dropped_steps),
    Figure("probes", Kind.COUNTER, "Answer probes.", lambda s: s.probes),
    Figure("probe_tokens", Kind.COUNTER, "Tokens computed for answer probes.", lambda s: s.probe_tokens),
    Figure("measured_rows", Kind.COUNTER, "Rows of steps whose attention was measured.", lambda s: s.measured_rows),
)

REJECTED = SplitFigure(
    "rejected_blocks",
    "reason",
    "Blocks of plans that were not evicted, by reason.",
    lambda s: {reason.value: count for reason, count in s.plans.rejected.items()},
)


def table() -> list[dict[str, Any]]:
    """Every metric as it is exposed: name, type, labels, help."""

    def row(name: str, kind: Kind, labels: tuple[str, ...], text: str) -> dict[str, Any]:
        exposed = PREFIX + name + ("_total" if kind is Kind.COUNTER else "")
        return {"name": exposed, "type": kind.value, "labels": list(labels), "help": text}

    active, active_help = ACTIVE
    refused, feature, refused_help = REFUSED
    return [
        row(active, Kind.GAUGE, LABELS, active_help),
        row(refused, Kind.GAUGE, (*LABELS, feature), refused_help),
        *(row(figure.name, figure.kind, LABELS, figure.help) for figure in FIGURES),
        row(REJECTED.name, REJECTED.kind, (*LABELS, REJECTED.label), REJECTED.help),
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(table(), indent=2) + "\n")
