//! The ticketing catalogue: shows that are created, published, cancelled, listed
//! and read. It knows nothing of counting; what it needs of the service around it
//! comes through [`http::AdminVerifier`] and [`http::ReadCounter`].
//!
//! The path of a change:
//!
//! 1. [`http`] reads the request: who calls, which JSON object it is.
//! 2. [`domain`] judges its fields and names every one that is wrong, or decides
//!    what the change comes to: transitions are a table.
//! 3. [`store`] commits the show, its notifications and the key that makes the
//!    call repeatable, in one transaction.
//! 4. [`notify`] sends the notifications afterwards, until they are delivered.
//!
//! The path of a read ends in step 3, or for a summary in [`summary`], where each
//! text is made once.
//!
//! On the wire a show is an "event", as the clients of ticketing services call
//! it. In this code it is a show, since events are what the rest of the service
//! counts.

mod catalogue;
mod clock;
pub mod domain;
pub mod http;
pub mod notify;
pub mod store;
pub mod summary;

pub use catalogue::{Catalogue, CatalogueError, Created};
pub use clock::Clock;
