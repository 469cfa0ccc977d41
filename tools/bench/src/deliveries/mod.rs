//! How fast accepted events are handed on: to handlers that do nothing, beside a user with half of all events, to webhooks,
//! and by the event pipeline to Redis.

mod consumer;
mod event_pipeline;
mod hot_user;
mod no_effect;
mod receiver;
mod redis_commands;
mod subscription;
mod user_events;
mod webhook;

use std::path::Path;

use crate::report::Report;
use crate::service::BenchService;

/// Users whose events are delivered, each user's in the order of their seqs.
const USERS: u32 = 1_000;
/// Webhooks, and events for Redis, are so many times fewer than those that are pulled.
const WEBHOOK_SHARE: usize = 20;
const REDIS_SHARE: usize = 4;
/// So are the events of other users beside a hot one.
const OTHERS_SHARE: usize = 10;
/// And they are at most so many: as many of the hot user may wait (`subscription_waiting_max`). With more of it, nothing is
/// read until some are delivered, and the others do wait.
const OTHERS_MAX: usize = 15_000;

/// Delivers `events` events in each of `rounds` rounds to handlers that do nothing, and fewer to the others.
pub(crate) async fn measure(
    program: &Path,
    dir: &Path,
    rounds: u32,
    events: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let settings = [("TALLYHOUSE_SUBSCRIPTION_PRIVATE_ADDRESSES", "true")];
    let service = BenchService::start(program, dir.join("deliveries"), &settings).await?;
    no_effect::measure(&service, rounds, events, report).await?;
    hot_user::measure(&service, rounds, (events / OTHERS_SHARE).min(OTHERS_MAX), report).await?;
    webhook::measure(&service, rounds, events / WEBHOOK_SHARE, report).await?;
    drop(service);
    event_pipeline::measure(program, dir, rounds, events / REDIS_SHARE, report).await
}
