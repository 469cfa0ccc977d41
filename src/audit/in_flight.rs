//! Hours that are affected by unconfirmed inserts of this service.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use uuid::Uuid;

use crate::clickhouse::audit::HourScope;
use crate::event_store::insert_gate::{GateHold, InsertGate};
use crate::hour_versions::segment_hours::{SegmentHours, read_hours};
use crate::log::{Segment, Segments};

/// Attempts to read a segment, whose file may be renamed meanwhile.
const ATTEMPTS: u32 = 3;

/// Knows the hours that may be stored in part: those of segments whose insert was attempted and is
/// not confirmed. The audit does not repair such hours.
pub(super) struct InFlight {
    gate: Arc<InsertGate>,
    segments: Arc<Segments>,
    /// The hours of unconfirmed segments.
    hours: Mutex<BTreeMap<Uuid, Arc<SegmentHours>>>,
}

impl InFlight {
    /// Of the segments that pass this gate.
    pub(super) fn new(gate: Arc<InsertGate>, segments: Arc<Segments>) -> Self {
        Self { gate, segments, hours: Mutex::default() }
    }

    /// Closes the gate: this service inserts nothing until the returned guard is dropped.
    pub(super) async fn hold(&self) -> GateHold<'_> {
        self.gate.hold().await
    }

    /// Whether an unconfirmed segment has events in this hour.
    pub(super) async fn touches(&self, scope: HourScope<'_>) -> bool {
        let unconfirmed = self.gate.unconfirmed();
        self.hours.lock().retain(|id, _| unconfirmed.contains(id));
        for id in unconfirmed {
            let touches = match self.hours_of(id).await.as_deref() {
                Some(SegmentHours::Known(hours)) => hours.touches(scope.org_id, scope.hour),
                Some(SegmentHours::Unknown) => true,
                // Either it has been stored since, or it cannot be read.
                None => self.gate.unconfirmed().contains(&id),
            };
            if touches {
                return true;
            }
        }
        false
    }

    /// The hours of a segment; none when it cannot be read.
    async fn hours_of(&self, id: Uuid) -> Option<Arc<SegmentHours>> {
        if let Some(hours) = self.hours.lock().get(&id) {
            return Some(Arc::clone(hours));
        }
        for _ in 0..ATTEMPTS {
            let segment = self.segments.list().into_iter().find(|segment| segment.id == id)?;
            match read(segment).await {
                Ok(hours) => {
                    let hours = Arc::new(hours);
                    self.hours.lock().insert(id, Arc::clone(&hours));
                    return Some(hours);
                }
                Err(error) => tracing::debug!(segment = %id, error, "a segment's hours could not be read"),
            }
        }
        None
    }
}

async fn read(segment: Segment) -> Result<SegmentHours, String> {
    let read = tokio::task::spawn_blocking(move || read_hours(&segment)).await;
    read.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}
