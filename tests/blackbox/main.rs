//! Claims about the whole service, shown through its real port against the
//! real ClickHouse. Each test has a house of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test says so by failing")]

mod analysts;
mod audit;
mod auth;
mod bounds;
mod calls;
mod clients;
mod events;
mod exactness;
mod house;
mod isolation;
mod keys;
mod late;
mod limited;
mod limits;
mod questions;
mod reflection;
mod rest;
mod running;
mod second;
mod settling;
mod tokens;
mod traces;
