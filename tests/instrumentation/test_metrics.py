from __future__ import annotations

import re
from dataclasses import fields

import rxtweets.instrumentation
from rxtweets import Stats
from rxtweets.instrumentation._metrics import GAUGES, METRICS, STAGE_GAUGES, STAGE_METRICS


def test_metrics_are_the_numbers_of_stats() -> None:
    names = {metric.name for metric in METRICS if not metric.name.startswith("stage.")}
    assert names == {field.name for field in fields(Stats)} - {"state"}


def test_gauges_are_names_of_metrics() -> None:
    assert {metric.name for metric in METRICS} >= GAUGES
    assert STAGE_METRICS.keys() >= STAGE_GAUGES


def test_metrics_are_described_as_in_stats() -> None:
    assert all(metric.description.endswith(".") for metric in METRICS)


def test_metrics_are_listed_in_the_docstring() -> None:
    text = rxtweets.instrumentation.__doc__ or ""
    whole, stages = text.split("`StageStats`")
    for listed, prefix in ((whole, ""), (stages, "stage.")):
        rows = re.findall(r"^(?:\w+ +(counter|gauge) | {22,})(.+)$", listed, re.MULTILINE)
        found: dict[str, bool] = {}
        is_counter = False
        for kind, names in rows:
            is_counter = kind == "counter" if kind else is_counter
            found |= dict.fromkeys(names.split(), is_counter)
        expected = {
            metric.name.removeprefix("stage."): metric.is_counter
            for metric in METRICS
            if metric.name.startswith("stage.") == bool(prefix)
        }
        assert found == expected
