//! Claims about the whole service, shown through its real port against the
//! real ClickHouse. Each test has a service of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod alerts;
mod analysts;
mod analytics;
mod attacks;
mod audit;
mod audit_due;
mod audit_repair;
mod auth;
mod backup;
mod bounds;
mod calls;
mod clickhouse_tls;
mod clients;
mod clock;
mod command_line;
mod compat;
mod damage;
mod dashboard;
mod directory;
mod doctor;
mod erasure;
mod event_types;
mod events;
mod exactness;
mod figures;
mod health;
mod idempotency;
mod ids;
mod isolation;
mod json_texts;
mod keys;
mod large_answers;
mod late;
mod lifecycle;
mod limits;
mod pagination;
mod parity;
mod pipeline;
mod questions;
mod rate_limited;
mod reflection;
mod rest;
mod retention;
mod server_check;
mod service;
mod sql;
mod sql_clients;
mod stored;
mod token_expiry;
mod tokens;
mod traces;
mod upgrade;
mod ways_in;
