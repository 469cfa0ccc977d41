//! Scenarios in which settings change while events wait, and in which a user or the handler holds up reading.

use std::time::Instant;

use super::*;

fn seqs_of(world: &World, user: &str) -> Vec<u64> {
    world.handler.calls().iter().filter(|call| call.user == user).map(|call| call.seq).collect()
}

async fn until(engine: &Engine, is_so: impl Fn(&SubscriptionStatus) -> bool) {
    while !is_so(&engine.status().await.unwrap()) {
        tokio::task::yield_now().await;
    }
}

fn ordered_by(order: Order) -> SubscriptionSettings {
    SubscriptionSettings { order, ..settings() }
}

#[test]
fn a_change_to_the_order_of_arrival_hands_out_what_waited_for_missing_seqs() {
    run(async {
        let world = World::new(HandlerShape::SINGLE, 1);
        let engine = world.start();
        world.source.push([2, 5, 3].map(|seq| event("ann", seq, false)));
        until(&engine, |status| status.buffered == 3).await;
        engine.update(ordered_by(Order::Arrival)).await.unwrap();
        world.source.push([event("ann", 4, false)]);
        idle(&engine, &world.source, 4).await;
        assert_eq!(seqs_of(&world, "ann"), [2, 5, 3, 4]);
    });
}

#[test]
fn an_event_that_is_out_when_the_order_changes_ends_as_it_was_handed_out() {
    run(async {
        let world = World::new(HandlerShape::SINGLE, 1);
        let engine = world.start();
        world.handler.slow.lock().insert("ann".to_owned());
        world.source.push([1, 2, 3].map(|seq| event("ann", seq, false)));
        until(&engine, |status| status.in_flight == 1 && status.waiting == 3).await;
        engine.update(ordered_by(Order::Arrival)).await.unwrap();
        world.handler.slow.lock().clear();
        world.source.push([event("ann", 9, false)]);
        idle(&engine, &world.source, 4).await;
        assert_eq!(seqs_of(&world, "ann"), [1, 2, 3, 9]);
        assert_eq!(engine.user("ann").await.unwrap().next_seq, 2, "the first was handed out by its seq");
    });
}

#[test]
fn a_change_to_the_order_of_seqs_loses_and_refuses_no_lower_seq() {
    run(async {
        let mut world = World::new(HandlerShape::SINGLE, 1);
        world.settings.order = Order::Arrival;
        let engine = world.start();
        world.handler.slow.lock().insert("ann".to_owned());
        world.source.push([3, 2].map(|seq| event("ann", seq, false)));
        until(&engine, |status| status.in_flight == 1 && status.waiting == 2).await;
        engine.update(ordered_by(Order::PerUser)).await.unwrap();
        world.source.push([event("ann", 1, false)]);
        until(&engine, |status| status.waiting == 3).await;
        world.handler.slow.lock().clear();
        idle(&engine, &world.source, 3).await;
        assert_eq!(seqs_of(&world, "ann"), [3, 1, 2]);
        assert!(engine.letters(0, 10).await.unwrap().is_empty());
    });
}

#[test]
fn an_event_that_was_tried_in_the_order_of_arrival_waits_for_the_seqs_before_it() {
    run(async {
        let mut world = World::new(HandlerShape::SINGLE, 1);
        world.settings.order = Order::Arrival;
        world.settings.backoff = crate::domain::Backoff { ms_min: 60_000, ms_max: 60_000 };
        let engine = world.start();
        world.source.push([event("ann", 3, true)]);
        until(&engine, |status| status.retrying == 1).await;
        engine.stop().await;
        drop(engine);
        world.settings = settings();
        let engine = world.start();
        world.source.push([1, 2].map(|seq| event("ann", seq, false)));
        idle(&engine, &world.source, 3).await;
        let calls: Vec<(u64, u32)> = world.handler.calls().iter().map(|call| (call.seq, call.attempt)).collect();
        assert_eq!(calls, [(3, 1), (1, 1), (2, 1), (3, 2), (3, 3)]);
        assert_eq!(engine.letters(0, 10).await.unwrap().len(), 1, "only what failed three times");
    });
}

#[test]
fn the_backlog_of_a_paused_user_skips_no_seq_of_others() {
    run(async {
        let mut world = World::new(RUNS, 1);
        world.bounds.waiting_max = 50;
        let engine = world.start();
        engine.pause_user("ann", true).await.unwrap();
        world.source.push([event("bob", 2, false)]);
        world.source.push((1..=100).map(|seq| event("ann", seq, false)));
        world.source.push([event("bob", 1, false)]);
        until(&engine, |status| status.is_full).await;
        for _ in 0..20 {
            assert_eq!(engine.status().await.unwrap().skipped, 0);
        }
        engine.pause_user("ann", false).await.unwrap();
        idle(&engine, &world.source, 102).await;
        assert_eq!(seqs_of(&world, "bob"), [1, 2]);
        assert_eq!(engine.status().await.unwrap().skipped, 0);
    });
}

#[test]
fn a_paused_user_with_few_events_does_not_keep_early_ones_of_others_waiting_for_ever() {
    run(async {
        let mut world = World::new(RUNS, 1);
        world.bounds.waiting_max = 100;
        let engine = world.start();
        engine.pause_user("ann", true).await.unwrap();
        world.source.push([event("ann", 1, false)]);
        world.source.push((2..=140).map(|seq| event("bob", seq, false)));
        world.source.push((1..=20).map(|seq| event("cid", seq, false)));
        while seqs_of(&world, "cid").len() < 20 {
            tokio::task::yield_now().await;
        }
        assert_eq!(engine.status().await.unwrap().skipped, 1);
        assert!(seqs_of(&world, "ann").is_empty());
    });
}

fn only(event_type: &str) -> SubscriptionSettings {
    let mut only = settings();
    only.filter.types = vec![event_type.to_owned()];
    only
}

#[test]
fn events_that_were_read_already_are_delivered_whatever_a_new_filter_says() {
    run(async {
        let mut world = World::new(HandlerShape::SINGLE, 1);
        let engine = world.start();
        world.source.push([event("ann", 2, false)]);
        until(&engine, |status| status.buffered == 1).await;
        engine.update(only("purchase")).await.unwrap();
        engine.crash().await;
        drop(engine);
        world.settings = only("purchase");
        let engine = world.start();
        world.source.push([Event { event_type: "purchase".to_owned(), ..event("ann", 1, false) }]);
        idle(&engine, &world.source, 2).await;
        assert_eq!(seqs_of(&world, "ann"), [1, 2]);
    });
}

#[test]
fn what_a_former_filter_left_out_is_not_delivered_after_a_restart() {
    run(async {
        let mut world = World::new(HandlerShape::SINGLE, 1);
        world.settings = only("click");
        let engine = world.start();
        let left_out = Event { event_type: "purchase".to_owned(), ..event("bob", 1, false) };
        world.source.push([event("ann", 2, false), left_out]);
        until(&engine, |status| status.buffered == 1 && status.read_to.row == 2).await;
        engine.update(settings()).await.unwrap();
        engine.crash().await;
        drop(engine);
        world.settings = settings();
        let engine = world.start();
        world.source.push([event("ann", 1, false)]);
        idle(&engine, &world.source, 3).await;
        let users: Vec<String> = world.handler.calls().into_iter().map(|call| call.user).collect();
        assert_eq!(users, ["ann", "ann"]);
    });
}

#[test]
fn no_seq_is_skipped_while_nothing_is_read() {
    run(async {
        let mut world = World::new(HandlerShape::SINGLE, 1);
        world.bounds.waiting_max = 50;
        world.settings.gap_policy = GapPolicy::SkipAfterMs(30);
        world.handler.slow.lock().insert("ann".to_owned());
        world.source.push([event("bob", 2, false)]);
        world.source.push((1..=100).map(|seq| event("ann", seq, false)));
        world.source.push([event("bob", 1, false)]);
        let engine = world.start();
        until(&engine, |status| status.is_full).await;
        let full_since = Instant::now();
        while full_since.elapsed() < Duration::from_millis(100) {
            assert_eq!(engine.status().await.unwrap().skipped, 0);
        }
        world.handler.slow.lock().clear();
        idle(&engine, &world.source, 102).await;
        assert_eq!(seqs_of(&world, "bob"), [1, 2]);
    });
}
