"""Exporters to monitoring systems: `prometheus` and `opentelemetry`, each with an extra.

::

    from rxtweets.instrumentation.prometheus import serve_metrics

    with serve_metrics(pipeline, port=9100):
        pipeline.run()

Both export the same metrics of a stream or a pipeline. Prometheus calls a counter
``rxtweets_NAME_total`` and a gauge ``rxtweets_NAME``; OpenTelemetry calls both ``rxtweets.NAME``.

=============  =======  ============================================================================
about          type     NAME
=============  =======  ============================================================================
lines          counter  received bytes delivered dropped unsubscribed beyond_limit undecodable
                        keep_alives disconnects unknown partial duplicates
connections    counter  connects reconnects rate_limits connection_limits usage_caps server_errors
                        stalls reader_crashes gaps restarts
handlers       counter  processed failed retried timed_out expired workers_lost
                        failure_handler_errors
batches        counter  batches batches_failed batched batched_failed subscriber_errors
acknowledging  counter  acknowledged acknowledger_errors late_acknowledgements abandoned
queues         counter  redelivered dead_lettered acks_lost broker_failures
queues         gauge    backlog backlog_age
events         counter  events_lost
load           gauge    queued in_flight unsettled threads_lost
stream         gauge    posts_today lag
=============  =======  ============================================================================

`rxtweets.Stats` describes each of them. The metrics of a stage are ``rxtweets_stage_NAME`` and
``rxtweets.stage.NAME``, which `StageStats` describes, by ``stage``, ``kind`` and ``number``:

=============  =======  ============================================================================
work           counter  busy_seconds capacity_seconds received done failed
load           gauge    concurrency running in_flight queued rate
=============  =======  ============================================================================

Prometheus also gets ``rxtweets_state`` (1 for the connection's state, by ``state``) and
``rxtweets_events_total`` (by ``event`` and ``part``). OpenTelemetry also gets spans.

May import: `rxtweets._core` and below.
"""
