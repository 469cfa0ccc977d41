//! Starts the service as a process of its own, for tests and measurements.
//!
//! A [`ServiceCommand`] says how one service is started: the program, its data
//! directory, its settings, and the commands that it is wrapped in. A [`Service`]
//! starts it, reads the [`Addresses`] that it prints, and stops or kills it.
//!
//! The kit knows the command line, what is printed and the files in the data
//! directory. It does not know the protocol or the service's types: the tests of
//! each kind add clients of their own.
//!
//! With the feature `redis` it also starts a Redis (`TestRedis`).

pub mod addresses;
pub mod command;
pub mod process;
#[cfg(feature = "redis")]
mod redis_server;
pub mod service;
mod wait;

pub use addresses::Addresses;
pub use command::{Mode, ServiceCommand};
#[cfg(feature = "redis")]
pub use redis_server::TestRedis;
pub use service::{Service, StartError};
pub use wait::{LOOK_PAUSE, PATIENCE, eventually};
