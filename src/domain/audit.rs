//! Findings of an audit: the differences between rollups and events.

use super::Timestamp;

/// A table of counts that is updated as events are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rollup {
    /// Events per campaign, minute and type.
    CampaignMinutes,
    /// Events per hour and type.
    TypeHours,
    /// Events per user and hour, as a row per user and day.
    UserDays,
    /// Events per user and minute.
    UserMinutes,
}

impl Rollup {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::CampaignMinutes, Self::TypeHours, Self::UserDays, Self::UserMinutes];

    /// The table's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CampaignMinutes => "campaign_minutes",
            Self::TypeHours => "type_hours",
            Self::UserDays => "user_days",
            Self::UserMinutes => "user_minutes",
        }
    }

    /// The rollup with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rollup| rollup.as_str() == name)
    }
}

/// The key of a rollup's row within one organization. Fields that are not part of the rollup's key
/// are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupKey {
    /// The first moment of the minute or hour.
    pub bucket: Timestamp,
    /// The campaign.
    pub campaign_id: String,
    /// The user.
    pub user_id: String,
    /// The hash of the user that is part of the key of `user_days`; otherwise 0.
    pub user_key: u64,
    /// The event type.
    pub event_type: String,
}

/// A key whose count is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: RollupKey,
    /// The number of distinct ids in the events.
    pub expected: i64,
    /// The count in the rollup.
    pub actual: i64,
    /// The number of events of this key that are proven to have been counted twice.
    pub counted_twice: u64,
}

impl Difference {
    /// The missing count; negative if the rollup counts too many.
    pub const fn missing(&self) -> i64 {
        self.expected.saturating_sub(self.actual)
    }

    /// The surplus count without proof of double counting.
    pub const fn unproven(&self) -> u64 {
        let over = self.actual.saturating_sub(self.expected);
        if over > 0 { over.unsigned_abs().saturating_sub(self.counted_twice) } else { 0 }
    }
}

/// The wrong counts of one rollup, in one hour of one organization.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differences {
    /// The rollup.
    pub rollup: Rollup,
    /// Keys whose count is wrong.
    pub keys: u64,
    /// Missing counts, summed over all keys with too low counts.
    pub under: u64,
    /// Surplus counts, summed over all keys with too high counts.
    pub over: u64,
    /// The part of them without proof of double counting.
    pub unproven: u64,
    /// The first of the keys, in order of time.
    pub listed: Vec<Difference>,
}

/// The result of auditing an hour of an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HourResult {
    /// Every rollup equals the events.
    Consistent,
    /// A rollup was wrong and has been repaired.
    Repaired,
    /// A rollup is wrong.
    Different,
    /// Events are being written into the hour, so the result is not final.
    InFlight,
    /// The hour could not be read within the time limit.
    Undetermined,
    /// A rollup counts more events than are stored, without proof of double counting.
    EventsMissing,
    /// Some or all of its events were deleted after the retention period, so it cannot be audited.
    Expired,
}

impl HourResult {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Consistent,
        Self::Repaired,
        Self::Different,
        Self::InFlight,
        Self::Undetermined,
        Self::EventsMissing,
        Self::Expired,
    ];

    /// Its name in metrics, JSON and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consistent => "consistent",
            Self::Repaired => "repaired",
            Self::Different => "different",
            Self::InFlight => "in flight",
            Self::Undetermined => "undetermined",
            Self::EventsMissing => "events missing",
            Self::Expired => "expired",
        }
    }

    /// Whether the rollups are known to be right.
    pub const fn is_right(self) -> bool {
        matches!(self, Self::Consistent | Self::Repaired)
    }

    /// Whether a later audit may have another result: the hour is neither right nor expired.
    pub const fn is_open(self) -> bool {
        !self.is_right() && !matches!(self, Self::Expired)
    }
}

/// The finding for an hour of an organization that was not consistent at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourFinding {
    /// The organization's id.
    pub org_id: String,
    /// The hour's first moment.
    pub hour: Timestamp,
    /// The result.
    pub result: HourResult,
    /// The number of its rows. 0 if they were not counted.
    pub rows: u64,
    /// The number of distinct ids.
    pub ids: u64,
    /// Why there is no result, or no repair, as text.
    pub reason: &'static str,
    /// The differences before the audit, by rollup.
    pub found: Vec<Differences>,
    /// The differences after the audit, by rollup.
    pub left: Vec<Differences>,
}

/// One audited hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedHour {
    /// The hour's first moment.
    pub hour: Timestamp,
    /// The number of distinct ids.
    pub ids: u64,
    /// The number of organizations with events or counts in it.
    pub organizations: u64,
    /// The findings for organizations that were not consistent at first.
    pub findings: Vec<HourFinding>,
}

/// The origin of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditAuthor {
    /// The service itself.
    Background,
    /// A person or program.
    Command,
}

impl AuditAuthor {
    /// The name in the record of repairs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Background => "background",
            Self::Command => "command",
        }
    }
}

/// The state of a repair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepairState {
    /// It is being inserted, and may or may not be in the rollup.
    Begun,
    /// It is in the rollup.
    Done,
    /// It was in the rollup and has been undone.
    Undone,
    /// It was begun, and the hour was right afterwards. It is unknown whether this repair did that.
    Closed,
}

impl RepairState {
    /// Its name in the record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Done => "done",
            Self::Undone => "undone",
            Self::Closed => "closed",
        }
    }

    /// The state with this number in the record.
    pub const fn of_number(number: i8) -> Option<Self> {
        Some(match number {
            1 => Self::Begun,
            2 => Self::Done,
            3 => Self::Undone,
            4 => Self::Closed,
            _ => return None,
        })
    }
}

/// A recorded repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedRepair {
    /// Its id.
    pub id: String,
    /// The hour's first moment.
    pub hour: Timestamp,
    /// The rollup.
    pub rollup: Rollup,
    /// How far it has come.
    pub state: RepairState,
    /// When it was begun.
    pub at: Timestamp,
    /// Keys whose count was changed.
    pub keys: u64,
    /// Counts added.
    pub added: u64,
    /// Counts removed.
    pub taken: u64,
    /// Its origin.
    pub author: String,
    /// The repair that this one undoes; empty if none.
    pub undoes: String,
}
