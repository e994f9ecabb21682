"""Every metric of the plugin: its name, its help, and where its value is read.

Needs nothing but the standard library: `python metric_definitions.py` prints the table as JSON, from which
`docs/metrics.md` is made. Names as in the embedded engine where the meaning is the same.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .scheduler_hooks import SchedulerHooks

PREFIX = "crystalkv_engine_"
#: Of every metric: the model's name, and the data-parallel rank as vLLM's own metrics have it.
LABELS = ("model_name", "engine")


class Kind(Enum):
    COUNTER = "counter"
    GAUGE = "gauge"


@dataclass(frozen=True)
class MetricDefinition:
    """A metric of an active plugin, read at scrape time under the hooks' lock, so it must cost next to nothing."""

    #: Without prefix, and without the `_total` of counters.
    name: str
    kind: Kind
    help: str
    read: Callable[["SchedulerHooks"], float]


def counter(name: str, text: str, read: Callable[["SchedulerHooks"], float]) -> MetricDefinition:
    return MetricDefinition(name, Kind.COUNTER, text, read)


def gauge(name: str, text: str, read: Callable[["SchedulerHooks"], float]) -> MetricDefinition:
    return MetricDefinition(name, Kind.GAUGE, text, read)


@dataclass(frozen=True)
class LabelledMetricDefinition:
    """A counter with a value for each value of one more label."""

    name: str
    label: str
    help: str
    read: Callable[["SchedulerHooks"], Mapping[str, float]]
    kind: Kind = Kind.COUNTER


#: Said whether or not the plugin is active.
ACTIVE = ("plugin_active", "1 while the plugin may evict; 0: stock vLLM.")
REFUSED = ("refused", "feature", "Features that keep the plugin inactive.")

METRICS = (
    gauge("stream_up", "1 while the policy service is connected.", lambda h: int(h.reporter.attached)),
    counter("steps", "Scheduling steps.", lambda h: h.step),
    gauge("kv_blocks", "KV blocks in the pool.", lambda h: h.manager.total_blocks),
    gauge("kv_blocks_free", "KV blocks that nobody uses.", lambda h: h.manager.free_blocks),
    gauge("kv_block_bytes", "Bytes of keys and values in a KV block.", lambda h: h.options.block_bytes),
    counter("blocks_evicted", "KV blocks evicted or freed by merges.", lambda h: h.plans.evicted_blocks),
    counter("merges", "Merges of KV blocks.", lambda h: h.plans.merges),
    counter("preemptions", "Preemptions of clients' requests.", lambda h: h.preemptions),
    counter("plans", "Plans received.", lambda h: h.plans.applied),
    counter("missed_steps", "Steps without the plan they needed.", lambda h: h.missed_steps),
    counter("dropped_reports", "Reports dropped: slow stream.", lambda h: h.reporter.dropped_steps),
    counter("probes", "Answer probes.", lambda h: h.probes.started),
    counter("probe_tokens", "Tokens computed for answer probes.", lambda h: h.probes.computed_tokens),
    counter("measured_rows", "Rows of steps whose attention was measured.", lambda h: h.measured_rows),
)

REJECTED = LabelledMetricDefinition(
    "rejected_blocks",
    "reason",
    "Blocks of plans that were not evicted, by reason.",
    lambda h: h.plans.rejected,
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
        *(row(metric.name, metric.kind, LABELS, metric.help) for metric in METRICS),
        row(REJECTED.name, REJECTED.kind, (*LABELS, REJECTED.label), REJECTED.help),
    ]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(table(), indent=2) + "\n")
