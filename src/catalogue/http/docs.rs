//! Serves the description at `/openapi.json` and its pages at `/docs`, which are part of the binary.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};
use axum::response::{IntoResponse as _, Redirect, Response};
use utoipa_swagger_ui::Config;

use super::failure::Failure;
use super::{MountedApi, openapi};

pub(super) async fn description(State(mounted): State<MountedApi>) -> Result<Response, Failure> {
    let json = openapi::description(mounted.prefix).map_err(|error| {
        tracing::error!(%error, "could not create the catalogue's description");
        Failure::internal()
    })?;
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response())
}

pub(super) async fn to_pages(State(mounted): State<MountedApi>) -> Redirect {
    Redirect::permanent(&format!("{}/docs/", mounted.prefix))
}

pub(super) async fn first_page(State(mounted): State<MountedApi>) -> Result<Response, Failure> {
    file("", &mounted)
}

pub(super) async fn page(
    State(mounted): State<MountedApi>,
    name: Result<Path<String>, PathRejection>,
) -> Result<Response, Failure> {
    let Path(name) = name.map_err(|_| Failure::no_such_path())?;
    file(&name, &mounted)
}

fn file(name: &str, mounted: &MountedApi) -> Result<Response, Failure> {
    let config = Arc::new(Config::from(format!("{}/openapi.json", mounted.prefix)));
    match utoipa_swagger_ui::serve(name, config) {
        Ok(Some(file)) => {
            let mut response = Response::new(Body::from(file.bytes.into_owned()));
            if let Ok(content_type) = HeaderValue::try_from(file.content_type) {
                response.headers_mut().insert(CONTENT_TYPE, content_type);
            }
            if file.gzpipped {
                response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            Ok(response)
        }
        Ok(None) => Err(Failure::no_such_path()),
        Err(error) => {
            tracing::error!(%error, "could not create a page of the documentation");
            Err(Failure::internal())
        }
    }
}
