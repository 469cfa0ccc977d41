//! The transports: gRPC, grpc-web and REST on one port.
//!
//! A transport parses requests into domain types, calls the application, and writes the answer. It decides
//! nothing: the same request through any transport has the same result. Shared code (authentication, error
//! codes, times, properties, page tokens) is in this folder.
//!
//! Its modules use each other in one direction; `scripts/check-modules` has the layers.

mod application;
mod auth;
mod call;
mod concurrency;
mod connect;
mod connections;
mod context;
mod cursor;
mod drain;
mod edge;
mod error;
mod foreign_batch;
mod foreign_event;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod grpc;
mod otlp;
mod properties;
pub mod proto;
mod protocol;
mod rest;
pub(crate) mod rfc3339;
mod serve;
mod tail;
mod ticketing;
mod website;

pub use application::Application;
pub use auth::{AuthError, Callers};
pub use connections::{Tls, TlsError, raise_descriptor_limit};
pub use cursor::Cursors;
pub use serve::{ServeError, serve};
pub use tail::LiveTail;
pub use ticketing::AdminScopeVerifier;
pub use website::{Website, WebsiteError};
