//! Attacks on the engine's time, threads and memory.

use std::time::{Duration, Instant};

use super::asker::{Asker, service};
use crate::service::eventually;

/// Runs for hours, if it is let.
const ENDLESS: &str = "SELECT count() FROM numbers(1000000000000) WHERE cityHash64(number) = 1";

async fn running(service: &crate::service::TestService) -> String {
    service.sql("SELECT count() FROM system.processes WHERE user LIKE 'analyst%'").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_past_its_time_ends_whatever_it_sets() {
    let service = service(&[("TALLYHOUSE_ANALYST_SECONDS_MAX", "1")]).await;
    for asker in [Asker::at_the_gateway(&service, None), Asker::at_the_engine(&service, None)] {
        for statement in [
            ENDLESS.to_owned(),
            format!("{ENDLESS} SETTINGS max_execution_time = 1000"),
            format!("SELECT * FROM ({ENDLESS} SETTINGS max_execution_time = 0)"),
            format!("SELECT * FROM ({ENDLESS} SETTINGS timeout_overflow_mode = 'break', max_execution_time = 0)"),
            "SELECT sum(sleepEachRow(0.1)) FROM numbers(1000)".to_owned(),
        ] {
            let begun = Instant::now();
            let answer = tokio::time::timeout(Duration::from_secs(30), asker.text(&statement)).await;
            let answer = answer.unwrap_or_else(|_| panic!("{}: {statement} does not end", asker.url));
            assert!(answer.is_err(), "{statement}: {answer:?}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{statement} took {:?}", begun.elapsed());
        }
    }
    eventually("nothing runs", || async { running(&service).await == "0" }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_whose_caller_has_gone_ends_in_the_engine() {
    let service = service(&[]).await;
    let asker = Asker::at_the_gateway(&service, None);
    let asking = tokio::spawn(async move { asker.text(ENDLESS).await });
    eventually("it runs", || async { running(&service).await == "1" }).await;
    // As many threads as the service allows, not as many as are asked for.
    let threads = "SELECT DISTINCT Settings['max_threads'] FROM system.processes WHERE user LIKE 'analyst%'";
    assert_eq!(service.sql(threads).await, "1");
    asking.abort();
    let gone = Instant::now();
    eventually("it has ended", || async { running(&service).await == "0" }).await;
    assert!(gone.elapsed() < Duration::from_secs(15), "{:?}", gone.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn threads_and_memory_stay_bounded_in_subqueries() {
    let service = service(&[("TALLYHOUSE_ANALYST_MEMORY_BYTES_MAX", "50000000")]).await;
    let greedy = "SELECT length(groupArray(repeat('x', 1000))) FROM numbers(1000000)";
    for asker in [Asker::at_the_gateway(&service, None), Asker::at_the_engine(&service, None)] {
        for statement in [
            greedy.to_owned(),
            format!("{greedy} SETTINGS max_memory_usage = 10000000000"),
            format!("SELECT * FROM ({greedy} SETTINGS max_memory_usage = 0)"),
        ] {
            let answer = asker.text(&statement).await;
            assert!(answer.is_err(), "{}: {statement}: {answer:?}", asker.url);
        }
    }
    let asker = Asker::at_the_gateway(&service, None);
    let refused = asker.text("SELECT * FROM (SELECT 1 FROM users SETTINGS max_threads = 64)").await.unwrap_err();
    assert!(refused.contains("SETTINGS in a subquery"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_beyond_the_bound_wait_for_their_turn() {
    let service = service(&[("TALLYHOUSE_ANALYST_QUERIES_IN_FLIGHT_MAX", "4")]).await;
    let acme = Asker::at_the_gateway(&service, Some("acme"));
    let slow = "SELECT count() FROM numbers(30000000) WHERE cityHash64(number) = 1";
    let asked: Vec<_> = (0..24)
        .map(|_| {
            let acme = acme.clone();
            tokio::spawn(async move { acme.text(slow).await })
        })
        .collect();
    eventually("some run", || async { running(&service).await != "0" }).await;
    let most = running(&service).await.parse::<u32>().unwrap();
    assert!(most <= 2, "{most} of one analyst run at a time");
    // Another analyst does not wait behind all of them.
    assert_eq!(Asker::at_the_gateway(&service, Some("beta")).text("SELECT 1").await.as_deref(), Ok("1"));
    let still_waiting = asked.iter().filter(|asking| !asking.is_finished()).count();
    assert!(still_waiting > 0, "the other was not answered before");
    for asking in asked {
        assert_eq!(asking.await.unwrap().as_deref(), Ok("0"));
    }
}
