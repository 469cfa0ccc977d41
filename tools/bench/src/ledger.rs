//! What the id ledger takes, as the service reports it.

use crate::report::Report;
use crate::service::BenchService;

/// Adds the ids that are held, and the bytes of memory and of disk that each of them takes. Nothing is added where the
/// service does not report them, or holds none.
pub(crate) async fn measure(service: &BenchService, report: &mut Report) -> anyhow::Result<()> {
    let metrics = service.metrics().await?;
    let ids = gauge(&metrics, "tallyhouse_ledger_ids").filter(|ids| *ids > 0.0);
    let memory = gauge(&metrics, "tallyhouse_ledger_memory_bytes");
    let disk = gauge(&metrics, "tallyhouse_ledger_size_bytes");
    let (Some(ids), Some(memory), Some(disk)) = (ids, memory, disk) else {
        eprintln!("ledger.*: left out, the service reports no ids in its ledger");
        return Ok(());
    };
    report.add("ledger.ids", ids, "ids");
    report.add("ledger.memory_bytes_per_id", memory / ids, "bytes");
    report.add("ledger.disk_bytes_per_id", disk / ids, "bytes");
    Ok(())
}

/// The value of a metric without labels.
fn gauge(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_is_read_by_its_whole_name() {
        let metrics = "# TYPE tallyhouse_ledger_ids gauge\ntallyhouse_ledger_ids_max 7\ntallyhouse_ledger_ids 300\n";
        assert_eq!(gauge(metrics, "tallyhouse_ledger_ids"), Some(300.0));
        assert_eq!(gauge(metrics, "tallyhouse_ledger"), None);
    }
}
