//! The domain of the catalogue: shows and their transitions. Pure: no clock, no I/O, no wire format.

mod change;
mod fields;
mod folding;
mod idempotency;
mod list;
mod new_show;
mod notification;
mod show;
mod status;
mod text;
mod timestamp;

pub use change::{Decision, Refusal, ShowChange};
pub use fields::{FieldFault, Fields, GivenValue};
pub use folding::FoldedText;
pub use idempotency::{Fingerprint, IdempotencyKey};
pub use list::{Audience, ListQuery, Listing, Overlap, Page, QueryParams};
pub use new_show::NewShow;
pub use notification::{Notification, NotificationKind, NotificationSubject};
pub use show::{Show, ShowId, Version};
pub use status::{Status, StatusSet};
pub use text::{CreatedBy, InternalNotes, Location, Title};
pub use timestamp::{MILLIS_PER_DAY, Timestamp};
