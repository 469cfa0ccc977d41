//! Serves the description at `/openapi.json` and its page `/docs`, which is part of the binary.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use bytes::Bytes;
use parking_lot::RwLock;
use utoipa_swagger_ui::Config;

use super::auth_layer::Routes;
use super::{openapi, web};
use crate::config::Config as Settings;
use crate::domain::Error;
use crate::transport::auth::RequiredAccess;
use crate::transport::call::SharedBody;
use crate::transport::error::failure::Failure;

/// What the page may load: its own files. It writes style attributes, and has pictures within its style sheet.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; object-src 'none'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Adds the routes, which require no token. The description is that of a service with these
/// settings.
pub(super) fn add(routes: Routes, settings: &Settings) -> Routes {
    let json = openapi::document(settings).map_or_else(
        |error| {
            tracing::error!(%error, "could not create the REST description");
            Bytes::from_static(b"{}")
        },
        |document| Bytes::from(document.to_string()),
    );
    let config = Arc::new(Config::from("/openapi.json"));
    let at_root = Arc::clone(&config);
    routes
        .route("/openapi.json", RequiredAccess::Nothing, get(description).with_state(Written(json)))
        // A page by another script, until that script had to be fetched from the internet.
        .route("/redoc", RequiredAccess::Nothing, get(async || Redirect::permanent("/docs/")))
        .route("/docs", RequiredAccess::Nothing, get(async || Redirect::permanent("/docs/")))
        .route("/docs/", RequiredAccess::Nothing, get(async move || page("", at_root)))
        .route(
            "/docs/{*file}",
            RequiredAccess::Nothing,
            get(async move |file: Result<Path<String>, PathRejection>| match file {
                Ok(Path(file)) => page(&file, config),
                Err(_) => Failure::no_such_path().into_response(),
            }),
        )
}

/// The description, as text.
#[derive(Clone)]
pub(super) struct Written(Bytes);

/// The description of this interface
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "getDescription", tag = "Service",
    responses((status = 200, description = "The OpenAPI description. `/docs` shows it.", content_type = "application/json", body = Object)),
)]
pub(super) async fn description(State(Written(json)): State<Written>) -> Response {
    let content_type = [(CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    (content_type, Extension(SharedBody), json).into_response()
}

/// The bytes of files that are not in the binary as they are sent, by name:
/// however many ask for one, it is in memory once.
static FILES: LazyLock<RwLock<HashMap<String, Bytes>>> = LazyLock::new(RwLock::default);

fn shared(name: &str, bytes: Cow<'static, [u8]>) -> Bytes {
    let made = match bytes {
        Cow::Borrowed(bytes) => return Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes,
    };
    if let Some(file) = FILES.read().get(name).filter(|file| **file == made) {
        return file.clone();
    }
    // There are only as many as the documentation has files.
    FILES.write().entry(name.to_owned()).insert_entry(Bytes::from(made)).get().clone()
}

fn page(name: &str, config: Arc<Config<'static>>) -> Response {
    match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(file)) => {
            let mut response = Response::new(Body::from(shared(name, file.bytes)));
            response.extensions_mut().insert(SharedBody);
            let headers = response.headers_mut();
            web::add_common(headers);
            headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
            if let Ok(content_type) = HeaderValue::try_from(file.content_type) {
                headers.insert(CONTENT_TYPE, content_type);
            }
            if file.gzpipped {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        Ok(None) => Failure::no_such_path().into_response(),
        Err(error) => {
            tracing::error!(%error, "could not create a page of the documentation");
            Failure::from(Error::internal()).into_response()
        }
    }
}
