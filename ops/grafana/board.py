#!/usr/bin/env python3
"""Writes the board for Grafana to standard output: `python3 ops/grafana/board.py > ops/grafana/postrider.json`.

A panel is one call below: title, what it tells, unit, and its queries with their legends. The panels of a row stand side by
side, in the order of the calls. .ci/board checks the result, and .ci/outage runs its queries against a real server.
"""

import json
import sys

# The version of the format, which Grafana migrates from by itself.
SCHEMA_VERSION = 42
COLUMNS = 24
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
# Narrows every query to what the reader has chosen.
CHOSEN = 'job=~"$job", instance=~"$instance"'


def series(name, **labels):
    """A metric of the chosen servers."""
    narrowed = "".join(f', {label}=~"{value}"' for label, value in labels.items())
    return f"{name}{{{CHOSEN}{narrowed}}}"


def rate(name, by="", **labels):
    """A counter's growth a second, added up by a label."""
    return f"sum{f' by ({by})' if by else ''} (rate({series(name, **labels)}[$__rate_interval]))"


def quantile(part, name, by="", **labels):
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({part}, sum by ({grouped}) (rate({series(name + '_bucket', **labels)}[$__rate_interval])))"


def quantiles(name, **labels):
    return [(quantile(part, name, **labels), legend) for part, legend in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99"))]


class Board:
    def __init__(self):
        self.panels = []
        self.x = self.y = self.row_height = 0

    def place(self, width, height):
        if self.x + width > COLUMNS:
            self.x, self.y, self.row_height = 0, self.y + self.row_height, 0
        position = {"x": self.x, "y": self.y, "w": width, "h": height}
        self.x += width
        self.row_height = max(self.row_height, height)
        return position

    def row(self, title):
        if self.x:
            self.place(COLUMNS, 0)
        self.panels.append({"type": "row", "title": title, "collapsed": False, "panels": [], "gridPos": self.place(COLUMNS, 1)})

    def panel(self, kind, title, description, unit, queries, width, height, options, custom=None, steps=None):
        defaults = {"unit": unit, "min": 0, "color": {"mode": "palette-classic" if custom else "thresholds"}}
        # The first step has no value: it holds for everything below the second.
        defaults["thresholds"] = {"mode": "absolute", "steps": [
            {"value": value, "color": color} for value, color in steps or [(None, "green")]]}
        if custom:
            defaults["custom"] = custom
        self.panels.append({
            "type": kind, "title": title, "description": description, "datasource": SOURCE,
            "gridPos": self.place(width, height),
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": options,
            "targets": [
                {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expression, "legendFormat": legend,
                 "editorMode": "code", "range": kind == "timeseries", "instant": kind != "timeseries"}
                for index, (expression, legend) in enumerate(queries)],
        })

    def stat(self, title, description, unit, expression, steps=None):
        options = {
            "colorMode": "value", "graphMode": "none", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
            "wideLayout": True, "showPercentChange": False, "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}
        self.panel("stat", title, description, unit, [(expression, title)], 4, 4, options, steps=steps)

    def graph(self, title, description, unit, queries, stacked=False, width=8):
        custom = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 30 if stacked else 10, "showPoints": "never",
                  "stacking": {"mode": "normal" if stacked else "none", "group": "A"}}
        options = {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
                   "tooltip": {"mode": "multi", "sort": "desc"}}
        self.panel("timeseries", title, description, unit, queries, width, 8, options, custom=custom)


def summary(board):
    board.row("Now")
    board.stat("Servers scraped", "Servers whose metrics are scraped.", "none", f"count({series('postrider_build_info')})",
               [(None, "red"), (1, "green")])
    board.stat("Store usable", "1 if every server can use its store.", "none", f"min({series('postrider_store_up')})",
               [(None, "red"), (1, "green")])
    board.stat("Oldest due", "How long the oldest due delivery has been due. From 60 s on look at the row \"Queue\".", "s",
               f"max({series('postrider_queue_oldest_due_age_seconds')})", [(None, "green"), (60, "orange"), (300, "red")])
    board.stat("Due", "Deliveries that are due and that no attempt has taken yet.", "short",
               f"max({series('postrider_queue_deliveries', state='due')})", [(None, "green"), (10000, "orange"), (1000000, "red")])
    failing = f"sum({series('postrider_endpoints', state='failing|paused')})"
    board.stat("Endpoints in trouble", "The share of the active endpoints that fail or are paused. Many at once point to this side.",
               "percentunit", f"{failing} / clamp_min(sum({series('postrider_endpoints', state='ok|failing|paused')}), 1)",
               [(None, "green"), (0.05, "orange"), (0.2, "red")])
    board.stat("Publishes refused", "Publishes a second that are refused for a fault of this side.", "reqps",
               rate("postrider_events_refused_total", reason="service_unavailable|internal_error"),
               [(None, "green"), (0.001, "red")])


def publishing(board):
    board.row("Publishing")
    board.graph("Events accepted", "Events that were accepted, by mode.", "ops", [(rate("postrider_events_accepted_total", "mode"), "{{mode}}")], stacked=True)
    board.graph("Publishes refused by reason", "Requests to publish that were refused, by error code. A batch counts once.", "reqps",
                [(rate("postrider_events_refused_total", "reason"), "{{reason}}")])
    board.graph("Repeated publishes", "Events that had been published before, by what showed it.", "ops",
                [(rate("postrider_events_deduplicated_total", "by"), "{{by}}")])
    board.graph("Time to answer a publish", "From the read body to the answer of a single publish. It holds a flush to the disk.", "s",
                quantiles("postrider_publish_seconds", kind="single"))
    board.graph("Time to answer a batch", "The same for a batch of events.", "s", quantiles("postrider_publish_seconds", kind="batch"))
    board.graph("Answers of the API", "Answers of the API and the pages, by the class of the status.", "reqps",
                [(rate("postrider_http_responses_total", "class"), "{{class}}")])


def deliveries(board):
    board.row("Deliveries")
    board.graph("Deliveries created", "Deliveries written to the log, by cause. Skipped and simulated ones count too.", "ops",
                [(rate("postrider_deliveries_created_total", "cause"), "{{cause}}")], stacked=True)
    board.graph("Deliveries ended", "Deliveries that ended, by status.", "ops", [(rate("postrider_deliveries_ended_total", "status"), "{{status}}")], stacked=True)
    board.graph("Why deliveries ended undelivered", "Failed, cancelled and skipped deliveries, by reason.", "ops",
                [(rate("postrider_deliveries_ended_total", "reason", status="failed|cancelled|skipped"), "{{reason}}")])
    board.graph("Wait for the first attempt", "From the creation of a delivery to its first attempt.", "s", quantiles("postrider_first_attempt_delay_seconds"))
    board.graph("Age at delivery", "From the creation of a delivery to the success that ended it, with its retries.", "s",
                quantiles("postrider_delivery_age_seconds", end="delivered"))
    board.graph("Age at failure", "From the creation of a delivery to the last attempt of its schedule.", "s",
                [(rate("postrider_delivery_age_seconds_sum", end="failed") + " / clamp_min(" + rate("postrider_delivery_age_seconds_count", end="failed") + ", 0.001)", "mean")])


def queue(board):
    board.row("Queue")
    board.graph("Deliveries in the queue", "Deliveries that have not ended: due, scheduled for later, held back with their endpoint, or claimed by an attempt.", "short",
                [(f"max by (job, state) ({series('postrider_queue_deliveries')})", "{{state}}")], stacked=True)
    board.graph("Age of the oldest due delivery", "Deliveries that are held back do not count.", "s",
                [(f"max by (job) ({series('postrider_queue_oldest_due_age_seconds')})", "oldest")])
    board.graph("Endpoints", "Endpoints, by how they stand.", "short", [(f"max by (job, state) ({series('postrider_endpoints')})", "{{state}}")], stacked=True)
    board.graph("Lanes", "Endpoints with deliveries that have not ended.", "short", [(f"max by (job, state) ({series('postrider_lanes')})", "{{state}}")], stacked=True)
    board.graph("Slots of attempts", "Attempts that are under way, and how many may be. At the limit the server needs more nodes, or receivers that answer sooner.",
                "short", [(f"sum({series('postrider_attempts_in_flight')})", "in flight"), (f"sum({series('postrider_attempt_slots')})", "slots")])
    board.graph("Age of the count", "Deliveries, lanes and endpoints are counted in the background; this old is the count.", "s",
                [(f"time() - max by (job) ({series('postrider_queue_counted_timestamp_seconds')})", "age")])


def attempts(board):
    board.row("Attempts")
    board.graph("Attempts by outcome", "Attempts written to the log, by outcome.", "ops", [(rate("postrider_attempts_total", "outcome"), "{{outcome}}")], stacked=True)
    board.graph("Answers of receivers", "Attempts that the receiver answered, by the class of the status.", "ops",
                [(rate("postrider_attempt_responses_total", "class"), "{{class}}")], stacked=True)
    board.graph("Attempts that fail here", "Attempts that fail through a fault of this side. Endpoints are not charged for it.", "ops",
                [(rate("postrider_attempts_total", "outcome", outcome="internal_error|dns_unavailable|proxy_failed"), "{{outcome}}")])
    board.graph("Phases of attempts, p95", "Time of each part of an attempt. first_byte is the time until the head of the answer.", "s",
                [(quantile(0.95, "postrider_attempt_phase_seconds", "phase"), "{{phase}}")])
    board.graph("Connections to receivers", "Open connections, by what they do.", "short", [(f"sum by (state) ({series('postrider_connections')})", "{{state}}")], stacked=True)
    used = "postrider_connections_used_total"
    board.graph("Connections that were reused", "The share of requests whose connection had carried one before.", "percentunit",
                [(f"{rate(used, reused='true')} / clamp_min({rate(used)}, 0.001)", "reused")])
    board.graph("DNS look-ups", "Look-ups of receivers' hosts, by result.", "ops", [(rate("postrider_dns_lookups_total", "result"), "{{result}}")])
    board.graph("Bytes to and from receivers", "Bytes of requests and answers, without those of TLS.", "Bps",
                [(rate("postrider_attempt_bytes_total", "direction"), "{{direction}}")], width=16)


def store(board):
    board.row("Store")
    board.graph("Commits", "Committed write transactions.", "ops", [(rate("postrider_store_commits_total", "store"), "{{store}}")])
    board.graph("Time of a transaction", "From its begin to the end of its commit. With SQLite the flush to the disk comes after it.", "s", quantiles("postrider_store_commit_seconds"))
    board.graph("Writes in a transaction", "The more writes share a transaction, the less each costs.", "short",
                [(f"{rate('postrider_store_commit_jobs_sum')} / clamp_min({rate('postrider_store_commit_jobs_count')}, 0.001)", "mean")])
    board.graph("Time of a flush", "A flush of the write-ahead log to the disk, with SQLite. Every publish waits for one.", "s", quantiles("postrider_store_sync_seconds"))
    board.graph("Write-ahead log", "Bytes in use, with SQLite. Publishes are refused at 1 GiB.", "bytes", [(series("postrider_store_wal_bytes"), "{{instance}}")])
    board.graph("Size of the database", "The database, and what of it is free to be used again.", "bytes",
                [(f"max by (job) ({series('postrider_store_file_bytes')})", "{{job}}"), (f"max by (job) ({series('postrider_store_free_bytes')})", "{{job}} free")])
    board.graph("Connections to the database", "Connections for reads, with PostgreSQL also for writes, by what they do.", "short",
                [(f"sum by (state) ({series('postrider_store_pool')})", "{{state}}")], stacked=True)
    board.graph("Waiting for the database", "Requests that wait for a connection. Only with PostgreSQL.", "short", [(series("postrider_store_pool_waiting"), "{{instance}}")])
    board.graph("Disk budget", "What the store may take, and what it uses. Publishes are refused when nothing is left.", "bytes",
                [(series("postrider_disk_budget_bytes"), "{{instance}} budget"), (series("postrider_disk_budget_used_bytes"), "{{instance}} used")])
    board.graph("State of the disk budget", "1 for the state that holds: ok, tight, full or stopped.", "none",
                [(series("postrider_disk_state"), "{{instance}} {{state}}")])
    board.graph("Removed by retention", "What retention removed, by kind.", "ops", [(rate("postrider_retention_removed_rows_total", "kind"), "{{kind}}")])
    board.graph("Clocks", "How far the clock of a server is off from that of its store. A node that is 30 s off sends nothing.", "s",
                [(f"abs({series('postrider_clock_offset_seconds')})", "{{instance}}")], width=12)
    board.graph("Age of the last backup", "Time since the snapshot of the last good backup by postrider backup. Absent when there is none.", "s",
                [(f"time() - {series('postrider_last_backup_timestamp_seconds')}", "{{instance}}")], width=12)


def sources(board):
    board.row("Sources of events")
    board.graph("Messages", "Messages of brokers and outbox tables: those that became events, repeats, and those that were parked.", "ops",
                [(rate("postrider_source_messages_total", "source, result"), "{{source}} {{result}}")])
    board.graph("Sources up", "1 while a server takes messages from the source or the source is paused, 0 while it cannot.", "none",
                [(series("postrider_source_up"), "{{instance}} {{source}}")])
    board.graph("Parked messages", "Messages that could not become events and wait for somebody.", "short",
                [(f"max by (source) ({series('postrider_source_parked_messages')})", "{{source}}")])
    board.graph("Time since the last message", "How long ago a server last settled messages of the source.", "s",
                [(f"time() - {series('postrider_source_last_message_timestamp_seconds')}", "{{instance}} {{source}}")])
    board.graph("Restarts of sources", "Failures after which a source was started again.", "ops", [(rate("postrider_source_restarts_total", "source"), "{{source}}")])
    board.graph("Time of a batch", "From the pull of a batch until it was settled.", "s", quantiles("postrider_source_batch_seconds"))


def process(board):
    board.row("Servers")
    # The name of the process is not in these metrics: only those of servers have the build beside them.
    def of_servers(expression):
        return f"{expression} and on (job, instance) {series('postrider_build_info')}"
    board.graph("Processor", "Cores in use.", "short", [(of_servers(f"rate({series('process_cpu_seconds_total')}[$__rate_interval])"), "{{instance}}")])
    board.graph("Memory", "Memory that is in RAM.", "bytes", [(of_servers(series("process_resident_memory_bytes")), "{{instance}}")])
    board.graph("File descriptors", "The share of the open files that the process may have.", "percentunit",
                [(of_servers(f"{series('process_open_fds')} / {series('process_max_fds')}"), "{{instance}}")])
    board.graph("Threads", "Threads of the process.", "short", [(of_servers(series("process_threads")), "{{instance}}")])
    board.graph("Lines of the log dropped", "Lines that were dropped because standard error was not read fast enough.", "ops",
                [(f"rate({series('postrider_log_lines_dropped_total')}[$__rate_interval])", "{{instance}}")])
    board.graph("Files of the settings", "1 if a file could not be used when it was last read.", "none",
                [(series("postrider_file_problem"), "{{instance}} {{file}}")])
    board.graph("Spans", "Spans for the collector: it took them, it did not, or the queue had no room for them.", "ops",
                [(rate("postrider_trace_spans_total", "result"), "{{result}}")])
    board.graph("Time since the start", "How long each server has run.", "s", [(f"time() - {series('postrider_start_time_seconds')}", "{{instance}}")])
    board.graph("Versions", "Servers of each version.", "none", [(f"count by (version, commit) ({series('postrider_build_info')})", "{{version}} {{commit}}")])


def variable(name, label):
    narrowed = "" if name == "job" else '{job=~"$job"}'
    query = f"label_values(postrider_build_info{narrowed}, {name})"
    return {"type": "query", "name": name, "label": label, "datasource": SOURCE,
            "query": {"query": query, "refId": f"variable-{name}"}, "refresh": 2, "sort": 1, "hide": 0,
            "multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}, "options": []}


def main():
    board = Board()
    for part in (summary, publishing, deliveries, queue, attempts, store, sources, process):
        part(board)
    document = {
        "title": "Postrider", "description": "Webhooks: publishing, deliveries, the queue and the servers.",
        "tags": ["postrider"], "schemaVersion": SCHEMA_VERSION, "editable": True, "graphTooltip": 1, "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"}, "timezone": "browser", "links": [], "annotations": {"list": []},
        "templating": {"list": [
            {"type": "datasource", "name": "datasource", "label": "Data source", "query": "prometheus", "hide": 0, "refresh": 1,
             "multi": False, "includeAll": False, "options": []},
            variable("job", "Job"), variable("instance", "Instance")]},
        "panels": board.panels,
    }
    json.dump(document, sys.stdout, indent=2, ensure_ascii=False)
    print()


main()
