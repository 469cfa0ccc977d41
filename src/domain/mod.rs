//! The domain: events, verdicts, queries, answers, errors and findings of audits.
//!
//! It depends on no wire format, database or runtime, and reads no clock: callers pass the time.

mod audit;
mod directory;
mod error;
mod event;
mod event_type;
mod hours;
mod metrics;
mod period;
mod query;
mod time;
mod verdict;
mod write_key;

pub use audit::{
    AuditAuthor, AuditedHour, Difference, Differences, HourFinding, HourResult, RecordedRepair, RepairState, Rollup,
    RollupKey,
};
pub use directory::{
    Member, MemberDraft, MemberPage, Organization, OrganizationCount, OrganizationDraft, UnknownTypes, User, UserDraft,
    nothing_wrong,
};
pub use error::{Breach, Error, ErrorCode, FieldError, Quota};
pub use event::{Event, EventDraft, EventLimits, OrgId, PropertiesDraft};
pub use event_type::{StoredVersion, VersionSummary};
pub use hours::HourSet;
pub use metrics::{CustomValue, Measurement, Metric, MetricSeries, SummaryQuery, check_days, unknown_metric};
pub use period::{Period, Periods};
pub use query::{
    Answer, CampaignBucket, CampaignCount, CampaignStats, DayCount, EventFilter, EventPage, Granularity, Limit,
    PageKey, Ranking, StatsQuery, StoredEvent, UserCount, Window,
};
pub use time::{MILLIS_PER_DAY, MILLIS_PER_HOUR, MILLIS_PER_MINUTE, Timestamp};
pub use verdict::{Rejection, RejectionCode, Verdict, VerdictCounts};
pub use write_key::WriteKey;
