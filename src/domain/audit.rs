//! Findings of an audit: the differences between rollups and events.

use super::Timestamp;

/// A table of counts that is kept up to date as events are stored.
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

/// What a rollup counts by, within one organization. What it does not count by
/// is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RollupKey {
    /// The first moment of the minute or hour.
    pub bucket: Timestamp,
    /// The campaign.
    pub campaign_id: String,
    /// The user.
    pub user_id: String,
    /// The hash of the user that is part of the key of `user_days`; else 0.
    pub user_key: u64,
    /// The event type.
    pub event_type: String,
}

/// A key whose count is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key.
    pub key: RollupKey,
    /// The distinct ids among the events.
    pub expected: i64,
    /// What the rollup says.
    pub actual: i64,
    /// How many events of this key are shown to have been counted twice.
    pub counted_twice: u64,
}

impl Difference {
    /// What is missing from the rollup; negative when it counts too many.
    pub const fn missing(&self) -> i64 {
        self.expected.saturating_sub(self.actual)
    }

    /// What the rollup counts too many that nothing shows to have been counted
    /// twice.
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
    /// Events that are missing, over all keys that count too few.
    pub under: u64,
    /// Events that are too many, over all keys that count too many.
    pub over: u64,
    /// Those of them that nothing shows to have been counted twice.
    pub unproven: u64,
    /// The first of the keys, in order of time.
    pub listed: Vec<Difference>,
}

/// What became of an hour of an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum HourResult {
    /// Every rollup says what the events say.
    Consistent,
    /// A rollup was wrong, and is right now.
    Repaired,
    /// A rollup is wrong.
    Different,
    /// Something is being written there, so nothing can be said yet.
    InFlight,
    /// It could not be read in the time that is allowed.
    Undetermined,
    /// A rollup counts more events than are stored, and nothing shows that they
    /// were counted twice.
    EventsMissing,
    /// Its events, or some of them, were deleted since they passed the
    /// retention period: it cannot be audited.
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

    /// Whether a later audit may say something else: the hour is neither right
    /// nor beyond saying.
    pub const fn is_open(self) -> bool {
        !self.is_right() && !matches!(self, Self::Expired)
    }
}

/// An hour of an organization that was not simply consistent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HourFinding {
    /// The organization, as the tables name it.
    pub org_id: String,
    /// The hour's first moment.
    pub hour: Timestamp,
    /// What became of it.
    pub result: HourResult,
    /// Rows among its events. 0 when they were not counted.
    pub rows: u64,
    /// Distinct ids among them.
    pub ids: u64,
    /// Why nothing can be said, or nothing was repaired, in words.
    pub reason: &'static str,
    /// What was wrong when it was found, by rollup.
    pub found: Vec<Differences>,
    /// What is wrong now, by rollup.
    pub left: Vec<Differences>,
}

/// One audited hour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedHour {
    /// The hour's first moment.
    pub hour: Timestamp,
    /// Distinct ids among its events.
    pub ids: u64,
    /// Organizations that have events or counts in it.
    pub organizations: u64,
    /// Those of them that are not simply consistent.
    pub findings: Vec<HourFinding>,
}

/// Who asked for an audit.
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

/// How far a repair has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RepairState {
    /// It is about to be inserted: it may be in the rollup or not.
    Begun,
    /// It is in the rollup.
    Done,
    /// It was in the rollup, and was taken back.
    Undone,
    /// It was begun, the hour was found right afterwards, and whether by this
    /// repair is not known.
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

/// A repair, as it is recorded.
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
    /// Events added.
    pub added: u64,
    /// Events taken away.
    pub taken: u64,
    /// Who asked for it, as in the record.
    pub author: String,
    /// The repair that this one took back; empty: none.
    pub undoes: String,
}
