//! The ticketing catalogue from outside.
//!
//! The modules in `contract` say what every implementation of the catalogue must
//! do, and know nothing else of it: with `TICKETING_TEST_URL` and
//! `TICKETING_TEST_TOKEN`, they run against the service at that address. Without,
//! they share a `tallyhouse dev`. The other modules are about Tallyhouse: each
//! test has services of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod browser;
mod cli;
mod client;
mod contract;
mod crash;
mod instances;
mod outbox;
mod reads;
mod receiver;
mod service;
#[path = "../../src/catalogue/store/test_postgres.rs"]
mod test_postgres;
mod wiring;
