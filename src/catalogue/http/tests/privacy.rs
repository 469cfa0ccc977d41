//! No private data in public answers: whatever private fields and drafts contain, no public answer,
//! entity tag or log line contains it.

use std::io::Write;

use proptest::prelude::*;

use super::*;

/// In every private text, and in nothing else.
const SECRET: &str = "s3cr3t";

/// What is logged on this thread.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
struct Made {
    status: usize,
    becomes: Option<usize>,
    notes: Option<String>,
    notes_later: Option<String>,
    title: String,
}

fn made() -> impl Strategy<Value = Made> {
    let notes = || prop::option::of("[a-z\"\\\\<>{}é\\n]{0,8}".prop_map(|text| format!("{text}{SECRET}{text}")));
    (0_usize..3, prop::option::of(0_usize..3), notes(), notes(), "[a-zA-Zé%,']{1,12}")
        .prop_map(|(status, becomes, notes, notes_later, title)| Made { status, becomes, notes, notes_later, title })
}

/// What the public may ask of an event, well and badly.
fn requests(id: &str, query: &str) -> Vec<Request<Body>> {
    let mut requests = Vec::new();
    for path in [
        format!("/public/events/{id}"),
        format!("/public/events/{id}/summary"),
        format!("/public/events/{}", id.to_uppercase()),
        format!("/public/events?{query}"),
        "/public/events?status=DRAFT".to_owned(),
        "/public/events?limit=100&locations=s3cr3".to_owned(),
        format!("/public/events/{id}/notes"),
        format!("/events/{id}"),
        "/events".to_owned(),
        "/notifications".to_owned(),
    ] {
        for method in ["GET", "HEAD", "POST", "PATCH", "OPTIONS"] {
            let request = Request::builder().method(method).uri(&path).header("content-type", "application/json");
            requests.push(request.body(Body::from(r#"{"status":"PUBLISHED"}"#)).unwrap());
        }
        let known = Request::get(&path).header("if-none-match", "\"v1\", \"v2\"").header("if-match", "\"v1\"");
        requests.push(known.body(Body::empty()).unwrap());
    }
    requests
}

async fn check(shows: Vec<Made>, query: String) {
    let statuses = ["DRAFT", "PUBLISHED", "CANCELLED"];
    let (test, mut ids) = (TestCatalogue::new().await, Vec::new());
    for made in &shows {
        let title = if made.status == 0 { format!("{SECRET}{}", made.title) } else { made.title.clone() };
        let fields = json!({
            "title": title, "location": if made.status == 0 { SECRET } else { "Globe" }, "status": statuses[made.status],
            "internalNotes": made.notes, "createdBy": made.notes,
        });
        let id = test.create(fields).await;
        // What was never a draft may become something else.
        let mut change = json!({"internalNotes": made.notes_later});
        if let Some(becomes) = made.becomes.filter(|_| made.status != 0) {
            change["status"] = statuses[becomes].into();
        }
        test.admin("PATCH", &format!("/events/{id}"), &change).await;
        ids.push((id, made.status == 0));
    }
    let lines = Lines::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer({
        let lines = lines.clone();
        move || lines.clone()
    });
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    for (id, is_draft) in &ids {
        for request in requests(id, &query) {
            let what = format!("{} {}", request.method(), request.uri());
            let is_of_it = request.uri().path().starts_with(&format!("/public/events/{id}"));
            let is_read = ["GET", "HEAD"].contains(&request.method().as_str());
            let answer = test.send(request).await;
            let told = format!("{} {:?} {}", answer.status, answer.headers, answer.text);
            for private in [SECRET, "internalNotes", "createdBy", "updatedAt", "version"] {
                assert!(!told.contains(private), "{what}: {told}");
            }
            if *is_draft && is_of_it && is_read {
                assert_eq!(answer.status, 404, "{what}");
                assert!(!told.contains("PUBLISHED"), "{what}: {told}");
            }
            if answer.status == 200 && answer.text.contains("isUpcoming") {
                let known = ["id", "title", "startAt", "endAt", "location", "status", "isUpcoming"];
                let body = answer.json();
                let events = body["events"].as_array().cloned().unwrap_or_else(|| vec![body.clone()]);
                for event in events {
                    let names: Vec<String> = event.as_object().unwrap().keys().cloned().collect();
                    assert!(names.len() == 7 && names.iter().all(|name| known.contains(&&**name)), "{names:?}");
                    assert!(["PUBLISHED", "CANCELLED"].contains(&event["status"].as_str().unwrap()));
                    assert!(ids.iter().any(|(id, is_draft)| event["id"] == **id && !is_draft));
                }
            }
        }
    }
    let lines = String::from_utf8_lossy(&lines.0.lock()).into_owned();
    assert!(!lines.contains(SECRET), "{lines}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]
    #[test]
    fn nothing_private_gets_out(
        shows in prop::collection::vec(made(), 1..5),
        query in "(dateFrom|dateTo|locations|page|limit|status|updatedAt|internalNotes)=[a-z0-9%,-]{0,8}",
    ) {
        // One thread, so that all lines are seen.
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(check(shows, query));
    }
}

#[tokio::test]
async fn what_changes_in_private_changes_nothing_in_public() {
    let test = TestCatalogue::new().await;
    let id = test.create(json!({"status": "PUBLISHED", "internalNotes": "a"})).await;
    let paths = [format!("/public/events/{id}"), format!("/public/events/{id}/summary"), "/public/events".to_owned()];
    let read = async || {
        let mut answers = Vec::new();
        for path in &paths {
            let Answer { mut headers, text, .. } = test.get(path).await;
            headers.remove("x-summary-cache");
            answers.push((format!("{headers:?}"), text));
        }
        answers
    };
    let before = read().await;
    test.set_now("2030-01-02T00:00:00Z");
    test.admin("PATCH", &format!("/events/{id}"), &json!({"internalNotes": "b"})).await;
    assert_eq!(read().await, before, "also its tags");
}
