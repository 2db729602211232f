"""The last look at the backups for Prometheus. Import this module only with prometheus-client.

``REGISTRY.register(BackupCollector())`` adds it to what a project exposes already. Names and units
follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mipyme_backup import api
from mipyme_backup.policy.status import LEVELS

PREFIX = "mipyme_backup_"


class BackupCollector(Collector):
    """Gauges of the last look; one query a scrape, and no look at any destination."""

    def describe(self) -> Iterable[Metric]:
        """Return nothing: with it a registry does not ask the database when it is set up."""
        return ()

    def collect(self) -> Iterator[Metric]:
        look = api.last_look()
        yield _gauge("level", "0 is fine, 1 a warning, 2 critical.", LEVELS.index(look.level))
        yield _labelled(
            "finding",
            "1 for each finding, by its id; see docs/reference/findings.md.",
            ("id", "level"),
            {(finding.id, finding.level): 1 for finding in look.findings},
        )
        if look.at is not None:
            moment = look.at.timestamp()
            yield _gauge("look_timestamp_seconds", "When the backups were looked at.", moment)
            yield from _overall(look.facts)
            yield from _destinations(look.facts["destinations"])


def exposition(accept: str) -> tuple[bytes, str]:
    """Return the metrics in the format that the header `accept` prefers, and its content type."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(BackupCollector())
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type


def _overall(facts: Mapping[str, Any]) -> Iterator[Metric]:
    newest, run, drill = facts["newest_good"], facts["last_run"], facts["last_drill"]
    if newest:
        finished, size = _seconds(newest["finished_at"]), newest["stored_size"]
        yield _gauge("newest_timestamp_seconds", "When the newest good backup ended.", finished)
        yield _gauge("newest_stored_bytes", "Its size as it is stored.", size)
    if run:
        began, well = _seconds(run["started_at"]), run["status"] == "complete"
        yield _gauge("last_run_timestamp_seconds", "When the last run that ended began.", began)
        yield _gauge("last_run_complete", "1 where all its copies are complete.", well)
    if drill:
        ended = _seconds(drill["finished_at"])
        yield _gauge("last_drill_timestamp_seconds", "When the last drill ended.", ended)
        yield _gauge("last_drill_passed", "1 where it passed.", drill["passed"])
        yield _gauge("last_drill_seconds", "How long it took.", drill["seconds"])
    predicted = facts["predicted_restore_seconds"]
    if predicted is not None:
        yield _gauge("predicted_restore_seconds", "How long a restore would take.", predicted)
    yield _gauge("missed_slots", "Slots without a backup.", len(facts["missed_slots"]))


def _destinations(destinations: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
    """Yield what is known of each; a value that is None has no sample."""
    families = {
        "reachable": "1 where it can be listed.",
        "writable": "1 where it takes backups.",
        "free_bytes": "Free space.",
        "total_bytes": "Its size.",
        "backups": "How many backups of this project it holds.",
        "clock_ahead_seconds": "How far its clock is ahead of the host's.",
    }
    for key, text in families.items():
        values: dict[tuple[str, ...], Any] = {
            (name,): facts[key] for name, facts in destinations.items()
        }
        yield _labelled(f"destination_{key}", text, ("destination",), values)
    newest: dict[tuple[str, ...], Any] = {
        (name,): _seconds(facts["newest_good"]["finished_at"])
        for name, facts in destinations.items()
        if facts["newest_good"]
    }
    text = "When the newest good backup there ended."
    yield _labelled("destination_newest_timestamp_seconds", text, ("destination",), newest)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=float(value))


def _labelled(
    name: str,
    text: str,
    labels: tuple[str, ...],
    values: Mapping[tuple[str, ...], Any],
) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, text, labels=labels)
    for of, value in values.items():
        if value is not None:
            family.add_metric(of, float(value))
    return family


def _seconds(moment: str) -> float:
    return datetime.fromisoformat(moment).timestamp()
