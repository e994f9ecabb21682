"""The plugin's own metrics, on a port of their own: they matter most when the policy service is down.

What there is stands in `metric_definitions`. Everything is read at scrape time.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .compat import Refusal
from .metric_definitions import ACTIVE, LABELS, METRICS, PREFIX, REFUSED, REJECTED, Kind
from .scheduler_hooks import SchedulerHooks

_FAMILIES = {Kind.COUNTER: CounterMetricFamily, Kind.GAUGE: GaugeMetricFamily}


class PluginCollector(Collector):
    """Metrics of one engine. `hooks` is None when the plugin is not active."""

    def __init__(self, model: str, engine: str, refusals: Iterable[Refusal], hooks: SchedulerHooks | None) -> None:
        self._values = [model, engine]
        self._refusals = sorted({refusal.feature for refusal in refusals})
        self._hooks = hooks

    def collect(self) -> Iterator[Metric]:
        name, text = ACTIVE
        yield self._single(name, Kind.GAUGE, text, int(self._hooks is not None))
        name, label, text = REFUSED
        yield self._split(name, Kind.GAUGE, label, text, dict.fromkeys(self._refusals, 1))
        if self._hooks is not None:
            with self._hooks.lock:
                yield from self._of(self._hooks)

    def _of(self, hooks: SchedulerHooks) -> Iterator[Metric]:
        for metric in METRICS:
            yield self._single(metric.name, metric.kind, metric.help, metric.read(hooks))
        yield self._split(REJECTED.name, REJECTED.kind, REJECTED.label, REJECTED.help, REJECTED.read(hooks))

    def _single(self, name: str, kind: Kind, text: str, value: float) -> Metric:
        family = _FAMILIES[kind](PREFIX + name, text, labels=LABELS)
        family.add_metric(self._values, value)
        return family

    def _split(self, name: str, kind: Kind, label: str, text: str, values: Mapping[str, float]) -> Metric:
        family = _FAMILIES[kind](PREFIX + name, text, labels=[*LABELS, label])
        for value, count in values.items():
            family.add_metric([*self._values, value], count)
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
