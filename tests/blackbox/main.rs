//! Claims about the whole service, shown through its real port against the
//! real ClickHouse. Each test has a house of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod analysts;
mod analytics;
mod attacks;
mod audit;
mod audit_due;
mod audit_repair;
mod auth;
mod bounds;
mod calls;
mod clients;
mod clock;
mod command_line;
mod damage;
mod directory;
mod event_types;
mod events;
mod exactness;
mod figures;
mod health;
mod house;
mod idempotency;
mod isolation;
mod json_texts;
mod keys;
mod large_answers;
mod late;
mod limited;
mod limits;
mod parity;
mod questions;
mod reflection;
mod rest;
mod retention;
mod running;
mod second;
mod server_check;
mod settling;
mod sql;
mod sql_clients;
mod stored;
mod tokens;
mod traces;
mod walk;
