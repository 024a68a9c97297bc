"""Exporters of counters, events and spans to monitoring systems: Prometheus, OpenTelemetry.

May import: `rxtweets._core` and below.
"""
