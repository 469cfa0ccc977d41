//! The ticketing catalogue: shows that are created, published, cancelled, listed and read. It does not
//! depend on the counting of events; what it needs of the service is behind [`http::AdminVerifier`] and
//! [`http::ReadCounter`].
//!
//! The path of a change:
//!
//! 1. [`http`] parses the request: the caller and a JSON object.
//! 2. [`domain`] validates its fields and names every invalid one, or decides which change results.
//!    Transitions are a table.
//! 3. [`store`] commits the show, its notifications and the idempotency key in one transaction.
//! 4. [`notify`] sends the notifications afterwards, until they are delivered.
//!
//! The path of a read ends in step 3, or for a summary in [`summary`], where each text is generated
//! once.
//!
//! On the wire a show is an "event", the usual word of ticketing services. In this code it is a show,
//! because events are what the rest of the service counts.

mod catalogue;
mod clock;
pub mod domain;
pub mod http;
pub mod notify;
pub mod store;
pub mod summary;

pub use catalogue::{Catalogue, CatalogueError, Created};
pub use clock::Clock;
