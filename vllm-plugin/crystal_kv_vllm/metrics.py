"""The plugin's own metrics, on a port of their own: they matter most when the policy service is down.

Names as in the embedded engine where the meaning is the same. Everything is read at scrape time.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .compat import Refusal
from .steward import Steward

_LABELS = ["model_name", "engine"]


class PluginCollector(Collector):
    """Metrics of one engine. `steward` is None when the plugin is not active."""

    def __init__(self, model: str, engine: str, refusals: Iterable[Refusal], steward: Steward | None) -> None:
        self._values = [model, engine]
        self._refusals = sorted({refusal.feature for refusal in refusals})
        self._steward = steward

    def collect(self) -> Iterator[Metric]:
        yield self._gauge(
            "plugin_active", "1 while the plugin may evict; 0: stock vLLM.", int(self._steward is not None)
        )
        refused = GaugeMetricFamily(
            "crystalkv_engine_refused", "Features that keep the plugin inactive.", labels=[*_LABELS, "feature"]
        )
        for feature in self._refusals:
            refused.add_metric([*self._values, feature], 1)
        yield refused
        if self._steward is not None:
            with self._steward.lock:
                yield from self._of(self._steward)

    def _of(self, steward: Steward) -> Iterator[Metric]:
        plans = steward.plans
        yield self._gauge("stream_up", "1 while the policy service is connected.", int(steward.attached))
        yield self._counter("steps", "Scheduling steps.", steward.step)
        yield self._counter("blocks_evicted", "KV blocks evicted.", plans.evicted_blocks)
        yield self._counter("plans", "Plans received.", plans.applied)
        yield self._counter("missed_steps", "Steps without the plan they needed.", steward.missed_steps)
        yield self._counter("dropped_reports", "Reports dropped: slow stream.", steward.dropped_steps)
        yield self._counter("probes", "Answer probes.", steward.probes)
        yield self._counter("probe_tokens", "Tokens computed for answer probes.", steward.probe_tokens)
        yield self._counter("measured_rows", "Rows of steps whose attention was measured.", steward.measured_rows)
        rejected = CounterMetricFamily(
            "crystalkv_engine_plan_blocks_rejected",
            "What of the plans was not done, by reason.",
            labels=[*_LABELS, "reason"],
        )
        for reason, count in plans.rejected.items():
            rejected.add_metric([*self._values, reason.value], count)
        yield rejected

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(f"crystalkv_engine_{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family

    def _counter(self, name: str, text: str, value: float) -> Metric:
        family = CounterMetricFamily(f"crystalkv_engine_{name}", text, labels=_LABELS)
        family.add_metric(self._values, value)
        return family


def serve_metrics(collector: Collector, port: int, host: str) -> tuple[int, Callable[[], None]]:
    """Listens; port 0 takes a free one. Returns the port and what ends it. Raises OSError when the port is taken."""
    registry = CollectorRegistry()
    registry.register(collector)
    server: WSGIServer
    thread: threading.Thread
    server, thread = start_http_server(port, host, registry)

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)

    return server.server_port, close
