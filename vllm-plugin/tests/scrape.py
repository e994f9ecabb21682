"""Reads over HTTP what a process says of itself."""

import urllib.request

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from waiting import PATIENCE_S


def fetch(url: str) -> str:
    """Raises OSError when there is no answer."""
    with urllib.request.urlopen(url, timeout=PATIENCE_S) as response:
        text: str = response.read().decode()
        return text


def samples(url: str) -> list[Sample]:
    """What `<url>/metrics` exposes. Raises OSError when there is no answer."""
    return [sample for family in text_string_to_metric_families(fetch(f"{url}/metrics")) for sample in family.samples]


def metric(url: str, name: str) -> float:
    """The first value of an engine's metric. Raises OSError when there is no answer, LookupError without the metric."""
    for sample in samples(url):
        if sample.name == f"crystalkv_engine_{name}":
            return sample.value
    raise LookupError(f"no metric crystalkv_engine_{name} at {url}")
