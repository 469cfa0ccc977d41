//! Tests that both kinds of windows allow the same.

use tallyhouse_testkit::TestRedis;

use super::*;

const SETTINGS: RateLimitSettings =
    RateLimitSettings { events_max: 5, window: Duration::from_millis(400), users_max: 1_000 };

async fn allows_so_many_in_any_window(limit: &UserRateLimit) {
    let events = |granted: &[Granted]| granted.iter().map(|granted| granted.events).collect::<Vec<_>>();
    let first = limit.take(&[("ann", 3), ("bob", 9)]).await;
    assert_eq!(events(&first), [3, 5]);
    assert!(first[0].wait.is_zero() && first[1].wait <= SETTINGS.window && !first[1].wait.is_zero());
    let second = limit.take(&[("ann", 2)]).await;
    assert_eq!(events(&second), [2]);
    assert_eq!(events(&limit.take(&[("ann", 1)]).await), [0]);
    limit.give_back("ann", &second[0], 1).await;
    assert_eq!(events(&limit.take(&[("ann", 2)]).await), [1], "what was given back is free");
    tokio::time::sleep(SETTINGS.window).await;
    assert_eq!(events(&limit.take(&[("bob", 5)]).await), [5], "the window has slid on");
}

#[tokio::test(start_paused = true)]
async fn windows_in_memory_slide() {
    let limit = UserRateLimit::new(SETTINGS, None);
    allows_so_many_in_any_window(&limit).await;
    assert!(limit.is_in_memory());
}

#[tokio::test]
async fn windows_in_redis_slide_and_fall_back_to_memory() {
    let Some(mut redis) = TestRedis::start() else { return };
    let connection = RedisConnection::new(&redis.url(), vec![rate_limit_script()]).unwrap();
    let limit = UserRateLimit::new(SETTINGS, Some(connection));
    allows_so_many_in_any_window(&limit).await;
    assert_eq!(redis.ask::<String>(&["TYPE", "rate:ann"]), "zset");
    assert!(!limit.is_in_memory());
    redis.kill();
    let granted = limit.take(&[("cid", 9)]).await;
    assert_eq!((granted[0].events, limit.is_in_memory()), (5, true));
}

#[tokio::test(start_paused = true)]
async fn without_a_limit_all_is_granted() {
    let limit = UserRateLimit::new(RateLimitSettings { events_max: 0, ..SETTINGS }, None);
    assert_eq!(limit.take(&[("ann", 1_000)]).await[0].events, 1_000);
}

#[test]
fn users_are_counted_in_the_order_of_their_first_events() {
    assert_eq!(count_users(["b", "a", "b"].into_iter()), [("b", 2), ("a", 1)]);
}
