//! Requests to a catalogue, of which nothing is known but its address and a
//! token.

use reqwest::header::{HeaderMap, HeaderName};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

/// An HTTP client for a catalogue at a URL, with a token.
#[derive(Clone)]
pub(crate) struct Client {
    url: String,
    token: String,
    http: reqwest::Client,
}

/// An answer, read whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Client {
    pub(crate) fn new(url: &str, token: &str) -> Self {
        // Reading the system's certificates takes longer than a call.
        let http = reqwest::Client::builder().tls_certs_only([]).redirect(reqwest::redirect::Policy::none());
        Self { url: url.trim_end_matches('/').to_owned(), token: token.to_owned(), http: http.build().unwrap() }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// A request of the public.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.url(path))
    }

    /// A request of an administrator.
    pub(crate) fn admin_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.request(method, path).bearer_auth(&self.token)
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn admin_get(&self, path: &str) -> Answer {
        send(self.admin_request(Method::GET, path)).await
    }

    pub(crate) async fn post(&self, body: &Value) -> Answer {
        send(self.admin_request(Method::POST, "/events").json(body)).await
    }

    pub(crate) async fn patch(&self, id: &str, body: &Value) -> Answer {
        send(self.admin_request(Method::PATCH, &format!("/events/{id}")).json(body)).await
    }

    /// Creates an event with these fields over good ones.
    pub(crate) async fn create(&self, fields: &Value) -> Value {
        let answer = self.post(&with(fields)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.json()
    }
}

/// A good body with these fields instead. (Null stays null.)
pub(crate) fn with(fields: &Value) -> Value {
    let mut body = json!({
        "title": "Hamlet",
        "startAt": "2100-05-17T19:30:00Z",
        "endAt": "2100-05-17T22:00:00Z",
        "location": "Globe Theatre, London",
    });
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    body
}

/// A good body without a field.
pub(crate) fn without(field: &str) -> Value {
    let mut body = with(&json!({}));
    body.as_object_mut().unwrap().remove(field);
    body
}

pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let answer = request.send().await.unwrap();
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    Answer { status, headers, text: answer.text().await.unwrap() }
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let name = HeaderName::try_from(name).unwrap();
        self.headers.get(&name).unwrap_or_else(|| panic!("no {name}: {self:?}")).to_str().unwrap()
    }

    /// The code of an error, whose body must be the one that all have.
    pub(crate) fn code(&self) -> String {
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("no error: {self:?}"));
        assert!(error["message"].is_string() && error["details"].is_array(), "{self:?}");
        assert_eq!((body.as_object().unwrap().len(), error.len()), (1, 3), "{self:?}");
        assert!(self.header("content-type").starts_with("application/json"));
        error["code"].as_str().unwrap().to_owned()
    }

    /// The fields that an error is about, sorted.
    pub(crate) fn fields(&self) -> Vec<String> {
        let body = self.json();
        let details = body["error"]["details"].as_array().unwrap();
        let mut fields: Vec<String> =
            details.iter().map(|detail| detail["field"].as_str().unwrap().to_owned()).collect();
        assert!(details.iter().all(|detail| !detail["message"].as_str().unwrap().is_empty()));
        fields.sort();
        fields
    }
}
