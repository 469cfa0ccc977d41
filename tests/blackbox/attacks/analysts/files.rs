//! Attacks on files: the service's secrets, other organizations' stored rows, the
//! machine's.

use super::asker::{Asker, fill, service};
use crate::tokens::SECRET;

#[tokio::test(flavor = "multi_thread")]
async fn no_analyst_reads_a_file() {
    let service = service(&[("TALLYHOUSE_CURSOR_SECRET", "another secret, of 32 bytes or more")]).await;
    fill(&service, "globex", 10).await;
    let part = service.sql("SELECT path FROM system.parts WHERE active AND table = 'users' LIMIT 1").await;
    let data_dir = service.data_dir().display();
    let paths = [
        "/proc/self/environ".to_owned(),
        format!("/proc/{}/environ", service.pid()),
        format!("/proc/{}/environ", service.engine_pid()),
        "/proc/1/environ".to_owned(),
        "/etc/passwd".to_owned(),
        "/dev/stdin".to_owned(),
        format!("{data_dir}/clickhouse/password"),
        format!("{data_dir}/clickhouse/etc/users.xml"),
        format!("{data_dir}/analyst-key"),
        format!("{data_dir}/idempotency.redb"),
        format!("{part}data.bin"),
        format!("{part}columns.txt"),
    ];
    for org in [Some("acme"), None] {
        for asker in [Asker::at_the_gateway(&service, org), Asker::at_the_engine(&service, org)] {
            for path in &paths {
                for attack in [
                    format!("SELECT file('{path}')"),
                    format!("SELECT file('{path}', 'none')"),
                    format!("SELECT `file`('{path}')"),
                    format!("SELECT arrayMap(x -> file(x), ['{path}'])"),
                    format!("SELECT * APPLY(file) FROM (SELECT '{path}')"),
                    format!("SELECT * FROM file('{path}', 'RawBLOB', 'x String')"),
                    format!("SELECT * FROM view(SELECT file('{path}'))"),
                    format!(
                        "SELECT * FROM (SELECT 1 SETTINGS additional_result_filter = 'length(file(\\'{path}\\')) < 0')"
                    ),
                    format!("SELECT catboostEvaluate('{path}', 1.0)"),
                ] {
                    let answer = asker.ask(&attack);
                    let answer = tokio::time::timeout(std::time::Duration::from_secs(20), answer).await;
                    let answer = answer.unwrap_or_else(|_| panic!("{attack} does not end"));
                    // A filter in a setting that is never applied answers 1.
                    let read_nothing = !answer.is_ok || answer.text == "1";
                    assert!(read_nothing, "{} {attack}: {}", asker.url, answer.text);
                }
            }
        }
    }
    let environ = std::fs::read(format!("/proc/{}/environ", service.engine_pid())).unwrap();
    let environ = String::from_utf8(environ).unwrap();
    assert!(!environ.contains(SECRET) && !environ.contains("TALLYHOUSE"), "{environ}");
    assert_eq!(environ.split_terminator('\0').count(), 2, "{environ}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_analyst_reaches_another_host_or_program() {
    let service = service(&[]).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for asker in [Asker::at_the_gateway(&service, None), Asker::at_the_engine(&service, None)] {
        for attack in [
            format!("SELECT * FROM url('http://{address}/', 'LineAsString')"),
            format!("SELECT * FROM remote('{address}', system.one)"),
            format!("SELECT * FROM s3('http://{address}/a/b', 'LineAsString')"),
            format!("SELECT * FROM mysql('{address}', 'a', 'b', 'c', 'd')"),
            format!("SELECT * FROM postgresql('{address}', 'a', 'b', 'c', 'd')"),
            format!("SELECT * FROM mongodb('{address}', 'a', 'b', 'c', 'd', 'x String')"),
            "SELECT * FROM executable('id', 'TSV', 'x String')".to_owned(),
            "SELECT * FROM cluster('default', system.one)".to_owned(),
        ] {
            let answer = asker.text(&attack).await;
            assert!(answer.is_err(), "{attack}: {answer:?}");
        }
    }
    let connected = tokio::time::timeout(std::time::Duration::from_millis(200), listener.accept()).await;
    assert!(connected.is_err(), "somebody connected");
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_says_how_much_of_the_sandbox_is_in_force() {
    let service = crate::service::TestService::new().await;
    let (status, body) = service.get("/readyz").await;
    assert_eq!(status, 200);
    let sandbox = body["engine_sandbox"].as_str().unwrap();
    let log = service.stderr();
    match sandbox {
        "full" => assert!(log.contains("runs in a sandbox"), "{log}"),
        "partial" => assert!(log.contains("a part of its sandbox"), "{log}"),
        _ => assert!(log.contains("WITHOUT a sandbox"), "{log}"),
    }
    // Every thread of the engine has the filter of system calls.
    if sandbox == "full" {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", service.engine_pid())).unwrap();
        for task in tasks.flatten() {
            let Ok(status) = std::fs::read_to_string(task.path().join("status")) else { continue };
            assert!(status.contains("Seccomp:\t2"), "{status}");
        }
    }
}
