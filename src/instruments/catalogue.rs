//! The catalogue of all metrics.

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that only increases.
    Counter,
    /// A current value.
    Gauge,
    /// A distribution of values.
    Histogram,
}

/// A metric's description.
#[derive(Clone, Copy, Debug)]
pub struct Described {
    /// Its name, in OpenTelemetry's form.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its unit (UCUM): `s`, `By`, or none.
    pub unit: &'static str,
    /// Its labels.
    pub labels: &'static str,
    /// Its meaning.
    pub meaning: &'static str,
}

const fn of(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static str,
    meaning: &'static str,
) -> Described {
    Described { name, kind, unit, labels, meaning }
}

use Kind::{Counter, Gauge, Histogram};

/// All metrics, ordered by name.
#[rustfmt::skip]
pub const CATALOGUE: [Described; 50] = [
    of("db.client.operation.duration", Histogram, "s", "db.system.name, db.operation.name, error.type", "Time of requests to ClickHouse: INSERT (of segments), SELECT (of answers, including the waiting time), LOOKUP (of late events)."),
    of("http.server.request.duration", Histogram, "s", "http.request.method, url.scheme, http.route, http.response.status_code, error.type", "Time of REST calls. Without a route: the path is unknown."),
    of("process.cpu.seconds", Counter, "", "", "Processor time, in seconds. On Linux only, like all of process.*. Does not include the embedded ClickHouse, which is a separate process."),
    of("process.max_fds", Gauge, "", "", "File descriptors that may be open."),
    of("process.open_fds", Gauge, "", "", "Open file descriptors."),
    of("process.resident_memory.bytes", Gauge, "", "", "Resident memory, in bytes."),
    of("process.start_time.seconds", Gauge, "", "", "When the service was started, in seconds since 1970."),
    of("process.threads", Gauge, "", "", "Threads."),
    of("process.virtual_memory.bytes", Gauge, "", "", "Virtual memory, in bytes."),
    of("rpc.server.call.duration", Histogram, "s", "rpc.system.name, rpc.method, rpc.response.status_code, error.type", "Time of gRPC and grpc-web calls; of streams, until their end. Unknown methods are `_OTHER`."),
    of("tallyhouse.audit.checks", Counter, "", "result", "Audited hours of organizations, by result."),
    of("tallyhouse.audit.found", Counter, "", "rollup, direction", "Missing and surplus counts found by audits, by rollup."),
    of("tallyhouse.audit.last_timestamp", Gauge, "s", "", "When an hour was last audited, in seconds since 1970; 0: never."),
    of("tallyhouse.audit.repaired", Counter, "", "rollup, direction", "Counts added and removed by repairs, by rollup."),
    of("tallyhouse.build.info", Gauge, "", "version, profile", "Always 1. The labels identify the build."),
    of("tallyhouse.cache.answers", Counter, "", "result", "Answers from the cache (`hit`) and from ClickHouse (`miss`)."),
    of("tallyhouse.clickhouse.up", Gauge, "", "", "1 if ClickHouse answered the last check, otherwise 0."),
    of("tallyhouse.deliveries.dead_letters", Gauge, "", "", "Dead letters of subscriptions. All of tallyhouse.deliveries.* sums up the subscriptions of all organizations, without the event pipeline, once a second."),
    of("tallyhouse.deliveries.events", Counter, "", "result", "Events that subscriptions are done with: `processed` by the handler, or `failed` and a dead letter."),
    of("tallyhouse.deliveries.lag", Gauge, "s", "", "The longest that an event has been waiting for its delivery, among subscriptions that are not paused; 0 if none waits."),
    of("tallyhouse.deliveries.missed", Gauge, "", "", "Subscriptions that were so far behind that segments of the log were deleted before they had read them."),
    of("tallyhouse.deliveries.retries", Counter, "", "", "Attempts to handle an event that failed and were repeated."),
    of("tallyhouse.deliveries.skipped", Counter, "", "", "Gaps in the seqs of users that subscriptions have stopped to wait for."),
    of("tallyhouse.deliveries.subscriptions", Gauge, "", "handler", "Subscriptions, by the kind of their handler."),
    of("tallyhouse.deliveries.waiting", Gauge, "", "state", "Events that subscriptions have read and that have not ended: `buffered` before their turn, `in_flight` with a handler, `ready` for it."),
    of("tallyhouse.forwarder.inserts", Counter, "", "result", "Attempts to insert a segment: `stored`, `failed` (and repeated), `refused` (and parked)."),
    of("tallyhouse.health.reason", Gauge, "", "code", "1 while this reason to refuse events or to count them late is present, otherwise 0. See `docs/health.md`."),
    of("tallyhouse.index.ids", Gauge, "", "", "Event ids held in memory: those that are not in the id ledger yet."),
    of("tallyhouse.ingest.batches", Histogram, "", "", "Events per batch."),
    of("tallyhouse.ingest.deduplication.duration", Histogram, "s", "", "Time of a batch from the check of its first event to its verdicts, including look-ups of late events."),
    of("tallyhouse.ingest.events", Counter, "", "verdict", "Events by verdict."),
    of("tallyhouse.ledger.complete", Gauge, "", "", "1 if the id ledger knows all ids from its floor on; 0 while it is rebuilt."),
    of("tallyhouse.ledger.floor_timestamp", Gauge, "s", "", "Ids of events before this time, in seconds since 1970, may have left the id ledger; 0: none have."),
    of("tallyhouse.ledger.ids", Gauge, "", "", "Event ids in the id ledger on disk."),
    of("tallyhouse.ledger.memory", Gauge, "By", "", "Bytes of memory that the id ledger takes."),
    of("tallyhouse.ledger.runs", Gauge, "", "", "Files of the id ledger, each of which may be asked for an id."),
    of("tallyhouse.ledger.size", Gauge, "By", "", "Bytes of the id ledger on disk."),
    of("tallyhouse.limits.refusals", Counter, "", "policy", "Calls refused by a rate limit. A limit that is off is not listed."),
    of("tallyhouse.limits.subjects", Gauge, "", "policy", "Organizations or users whose rate is currently counted."),
    of("tallyhouse.log.age", Gauge, "s", "", "Age of the oldest acknowledged event that is not in ClickHouse; 0 if there is none."),
    of("tallyhouse.log.events", Gauge, "", "", "Events not in ClickHouse."),
    of("tallyhouse.log.groups", Histogram, "", "", "Events that were synced to disk together."),
    of("tallyhouse.log.segments", Gauge, "", "", "Sealed segments not in ClickHouse."),
    of("tallyhouse.log.segments.parked", Gauge, "", "", "Segments that ClickHouse refused."),
    of("tallyhouse.log.size", Gauge, "By", "", "Bytes of the log on disk."),
    of("tallyhouse.log.sync.duration", Histogram, "s", "", "Time of a write to the log and its fdatasync."),
    of("tallyhouse.requests.in_flight", Gauge, "", "", "Calls in flight, including streams."),
    of("tallyhouse.ticketing.notification.attempts", Counter, "", "result", "Attempts of this service to send a notification of the ticketing catalogue: `delivered`, `failed` (and repeated), `given_up` (the last one failed)."),
    of("tallyhouse.ticketing.notifications", Gauge, "", "state", "Notifications of the ticketing catalogue that have not been delivered: `pending`, or `given_up`. Counted in its database every five seconds, so services that share it show the same."),
    of("tallyhouse.ticketing.notifications.lag", Gauge, "s", "", "The longest that a pending notification of the ticketing catalogue has been waiting; 0 if none waits."),
];

impl Described {
    /// Its name in Prometheus's form.
    pub fn prometheus_name(&self) -> String {
        let name = self.name.replace('.', "_");
        let unit = match self.unit {
            "s" => "_seconds",
            "By" => "_bytes",
            _ => "",
        };
        let total = if self.kind == Counter { "_total" } else { "" };
        format!("{name}{unit}{total}")
    }
}

/// The page `docs/metrics.md`.
pub fn reference_markdown() -> String {
    let mut page = String::from(
        "# Metrics\n\n\
         Served at `/metrics` in Prometheus's text format, and checked with `promtool check metrics`. Names and labels of `http.*`, `rpc.*`\n\
         and `db.*` are those of OpenTelemetry's semantic conventions (1.40), with dots as underscores, and the same as in spans; `process_*` are those\n\
         of Prometheus's own client libraries. No label contains an id, an organization, or another value that callers choose. Histograms have `_bucket`, `_sum` and `_count`. Spans: `docs/tracing.md`.\n\n\
         | metric | kind | unit | labels | meaning |\n|---|---|---|---|---|\n",
    );
    for metric in CATALOGUE {
        let name = metric.prometheus_name();
        let kind = match metric.kind {
            Counter => "counter",
            Gauge => "gauge",
            Histogram => "histogram",
        };
        let unit = match metric.unit {
            "s" => "seconds",
            "By" => "bytes",
            _ => "",
        };
        let labels = metric.labels.replace('.', "_");
        page.push_str(&format!("| `{name}` | {kind} | {unit} | {labels} | {} |\n", metric.meaning));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_metrics_is_true() {
        let page = include_str!("../../docs/metrics.md");
        if std::env::var_os("TALLYHOUSE_WRITE_PAGES").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"), reference_markdown())
                .expect("written");
            return;
        }
        assert_eq!(page, reference_markdown(), "run this test with TALLYHOUSE_WRITE_PAGES=1 to write the page");
    }

    #[test]
    fn the_catalogue_is_in_order() {
        assert!(CATALOGUE.is_sorted_by_key(|metric| metric.name));
    }
}
