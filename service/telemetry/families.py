"""Metric families built from counts."""

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from service.telemetry.histogram import Histogram

Labels = tuple[str, ...]


def counters(name: str, text: str, labels: Labels, counts: Mapping[Labels, float]) -> CounterMetricFamily:
    """Return a family with one counter per combination of labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family


def gauges(name: str, text: str, labels: Labels, values: Iterable[tuple[Labels, float]]) -> GaugeMetricFamily:
    """Return a family with one gauge per combination of labels."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for each, value in values:
        family.add_metric(each, value)
    return family


def histograms(name: str, text: str, labels: Labels, seen: Mapping[Labels, Histogram]) -> HistogramMetricFamily:
    """Return a family with one histogram per combination of labels."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, histogram in seen.items():
        family.add_metric(values, histogram.buckets(), histogram.total)
    return family
