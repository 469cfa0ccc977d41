//! Attacks on a running service, made as an attacker would make them: through
//! the real port, with raw TCP, HTTP or HTTP/2 frames where a well-behaved
//! client would not do.
//!
//! One file per kind of attack. Each test asserts what stops the attack and
//! that others are served meanwhile. Each is bounded in requests, memory and
//! time, and ends by itself. `scripts/attack` runs all of them; the table in
//! `docs/security.md` names the test for each line of the threat model.

mod analysts;
mod browsers;
mod client;
mod connections;
mod deadlines;
mod defaults;
mod fairness;
mod probes;
mod slow_bodies;
mod slow_readers;
mod streams;
mod tls;
