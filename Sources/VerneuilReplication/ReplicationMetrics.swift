import CoreMetrics

/// What replication counts, for whichever swift-metrics backend the program has
/// installed (none: at no cost). Names are Prometheus's; `database` is the file's path, `target` the store's name.
///
/// | metric | type | what |
/// |---|---|---|
/// | verneuil_replication_lag_seconds | gauge | age of the oldest commit that the target lacks; set once a scan and after each pass |
/// | verneuil_snapshots_stored_total | counter | manifests written |
/// | verneuil_upload_requests_total | counter | PUTs of chunks and manifests |
/// | verneuil_upload_bytes_total | counter | their bodies |
/// | verneuil_upload_seconds | timer | from a snapshot's first request to its manifest's answer |
/// | verneuil_chunks_touched_total | counter | the patrol's requests |
/// | verneuil_replication_failures_total | counter | passes that failed |
struct TargetMetrics: Sendable {
    let lag: Gauge
    let snapshots: Counter
    let requests: Counter
    let bytes: Counter
    let touches: Counter
    let failures: Counter
    let duration: Timer

    init(database: String, target: String) {
        let of = [("database", database), ("target", target)]
        lag = Gauge(label: "verneuil_replication_lag_seconds", dimensions: of)
        snapshots = Counter(label: "verneuil_snapshots_stored_total", dimensions: of)
        requests = Counter(label: "verneuil_upload_requests_total", dimensions: of)
        bytes = Counter(label: "verneuil_upload_bytes_total", dimensions: of)
        touches = Counter(label: "verneuil_chunks_touched_total", dimensions: of)
        failures = Counter(label: "verneuil_replication_failures_total", dimensions: of)
        duration = Timer(label: "verneuil_upload_seconds", dimensions: of)
    }
}
