//! Checks the events of a batch within limits of work and time.
//!
//! Cheap checks run at once on the thread that serves the call. All others, including the compilation of
//! schemas, run on the [workers](super::workers), in turns with other organizations. Events that are not
//! reached in time are undecided: they are neither stored nor rejected, and can be sent again in smaller
//! batches.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::EventTypes;
use super::check::CompiledSchema;
use super::compiled::{CompiledSchemas, VersionKey};
use super::latest::{LatestVersion, OrgTypes};
use super::schema::Schema;
use crate::domain::{Event, FieldError, OrgId, Rejection, RejectionCode, UnknownTypes};
use crate::json;

/// Most steps of an event that is checked on the thread of its call; less than a millisecond.
const INLINE_STEPS_MAX: u64 = 20_000;
/// Most steps of all events of a batch that are checked there.
const INLINE_BATCH_STEPS_MAX: u64 = 200_000;
/// Longest time that a batch uses a worker before the next one runs.
const TURN_MAX: Duration = Duration::from_millis(50);
/// Errors that are listed for a batch. Beyond this, one for each event.
const BATCH_FAULTS_MAX: usize = 2_000;

/// The result of checking an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It satisfies this version of its type; 0 if the type is not registered.
    Version(u32),
    /// It does not satisfy its type, or its type is unknown.
    Unwanted(Rejection),
    /// It could not be checked in time.
    Undecided,
}

/// An event that a worker checks.
struct PendingCheck {
    position: usize,
    of: Arc<(VersionKey, Arc<str>)>,
    properties: String,
}

/// How many errors of a batch can still be listed in full.
struct ErrorBudget(usize);

impl ErrorBudget {
    fn cut(&mut self, mut faults: Vec<FieldError>) -> Vec<FieldError> {
        faults.truncate(self.0.max(1));
        self.0 = self.0.saturating_sub(faults.len());
        faults
    }
}

impl EventTypes {
    /// Checks events of an organization against its types, in order.
    pub async fn check<'e, 'd: 'e>(
        &self,
        org_id: &OrgId,
        types: &OrgTypes,
        events: impl Iterator<Item = &'e Event<'d>>,
    ) -> Vec<Checked> {
        let deadline = Instant::now() + self.settings.wait_max;
        let mut checked = Vec::new();
        let mut jobs = VecDeque::new();
        let mut keys: HashMap<&str, Arc<(VersionKey, Arc<str>)>> = HashMap::new();
        let (mut inline_left, mut error_budget) = (INLINE_BATCH_STEPS_MAX, ErrorBudget(BATCH_FAULTS_MAX));
        for (position, event) in events.enumerate() {
            let Some(latest) = types.latest(event.event_type()) else {
                checked.push(of_unknown_type(types.unknown()));
                continue;
            };
            let LatestVersion { version, schema: Some(schema) } = latest else {
                checked.push(Checked::Version(latest.version));
                continue;
            };
            let of = keys.entry(event.event_type()).or_insert_with(|| {
                let event_type = event.event_type().to_owned();
                let key = VersionKey { org_id: org_id.clone(), event_type, version: *version };
                Arc::new((key, Arc::clone(schema)))
            });
            let properties = if event.properties().is_empty() { "{}" } else { event.properties() };
            match self.compiled.get(&of.0) {
                Some(None) => checked.push(Checked::Version(0)),
                Some(Some(check)) if check.steps_of_text(properties.len()) <= inline_left.min(INLINE_STEPS_MAX) => {
                    inline_left -= check.steps_of_text(properties.len());
                    checked.push(judge(&check, *version, properties, &mut error_budget));
                    // Checking costs; others must get their turn within a batch.
                    tokio::task::coop::consume_budget().await;
                }
                _ => {
                    jobs.push_back(PendingCheck { position, of: Arc::clone(of), properties: properties.to_owned() });
                    checked.push(Checked::Undecided);
                }
            }
        }
        self.check_on_workers(org_id, jobs, error_budget, deadline, &mut checked).await;
        checked
    }

    async fn check_on_workers(
        &self,
        org_id: &OrgId,
        mut jobs: VecDeque<PendingCheck>,
        mut error_budget: ErrorBudget,
        deadline: Instant,
        checked: &mut [Checked],
    ) {
        while !jobs.is_empty() {
            let schemas = Arc::clone(&self.compiled);
            let work = move || turn(&schemas, jobs, error_budget, deadline);
            let Some(done) = self.workers.run_before(deadline, org_id, work).await else { break };
            for (position, of_event) in done.checked {
                checked[position] = of_event;
            }
            (jobs, error_budget) = (done.jobs, done.error_budget);
            if Instant::now() >= deadline {
                break;
            }
        }
        let undecided = checked.iter().filter(|checked| **checked == Checked::Undecided).count();
        if undecided > 0 {
            let org_id = org_id.as_str();
            tracing::warn!(org_id, undecided, "events could not be checked against their schemas in time");
        }
    }
}

/// The results of a worker's turn, and the remaining events.
struct TurnResult {
    checked: Vec<(usize, Checked)>,
    jobs: VecDeque<PendingCheck>,
    error_budget: ErrorBudget,
}

/// Checks events until the end of the turn.
fn turn(
    schemas: &CompiledSchemas,
    mut jobs: VecDeque<PendingCheck>,
    mut error_budget: ErrorBudget,
    deadline: Instant,
) -> TurnResult {
    let end = deadline.min(Instant::now() + TURN_MAX);
    let mut checked = Vec::new();
    // Those that are too large to be kept are compiled once in a turn.
    let mut compiled: HashMap<VersionKey, Option<Arc<CompiledSchema>>> = HashMap::new();
    while Instant::now() < end
        && let Some(job) = jobs.pop_front()
    {
        let (key, schema) = &*job.of;
        let check = match compiled.get(key) {
            Some(check) => check.clone(),
            None => {
                let check = schemas.get(key).unwrap_or_else(|| compile_stored(schemas, key, schema));
                compiled.insert(key.clone(), check.clone());
                check
            }
        };
        let of_event =
            check.map_or(Checked::Version(0), |check| judge(&check, key.version, &job.properties, &mut error_budget));
        checked.push((job.position, of_event));
    }
    TurnResult { checked, jobs, error_budget }
}

/// Compiles a stored schema, and caches it. None if it is invalid.
fn compile_stored(schemas: &CompiledSchemas, key: &VersionKey, schema: &str) -> Option<Arc<CompiledSchema>> {
    let compiled = match Schema::parse(schema).and_then(|schema| CompiledSchema::compile(&schema)) {
        Ok(check) => Some(Arc::new(check)),
        Err(faults) => {
            // Written by hand, or by a service with other bounds. Events are
            // worth more than a schema that nobody can read.
            let VersionKey { org_id, event_type, version } = key;
            let org_id = org_id.as_str();
            tracing::error!(
                org_id,
                event_type,
                version,
                ?faults,
                "a stored schema cannot be compiled: its events are not checked"
            );
            None
        }
    };
    schemas.put(key.clone(), compiled.clone());
    compiled
}

fn of_unknown_type(policy: UnknownTypes) -> Checked {
    match policy {
        UnknownTypes::Accept => Checked::Version(0),
        UnknownTypes::Reject => Checked::Unwanted(Rejection {
            code: RejectionCode::UnknownType,
            errors: vec![FieldError::new("type", "must be a type that the organization has registered")],
        }),
    }
}

fn judge(check: &CompiledSchema, version: u32, properties: &str, error_budget: &mut ErrorBudget) -> Checked {
    let errors = match json::parse(properties) {
        Ok(properties) => check.faults(&properties),
        // The transport has written this text itself.
        Err(error) => vec![FieldError::new("properties", format!("must be a JSON object: {error}"))],
    };
    if errors.is_empty() {
        return Checked::Version(version);
    }
    Checked::Unwanted(Rejection { code: RejectionCode::Schema, errors: error_budget.cut(errors) })
}
