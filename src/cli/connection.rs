//! Connects to a service: its address, its token, and messages for connection errors.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::TryFutureExt as _;
use reqwest::StatusCode;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use crate::config::Secret;

/// How long a connection may take to open.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long the first request may take.
const CHECK_WAIT: Duration = Duration::from_secs(2);
/// Interval and time-out of keep-alive pings. Without them, a machine that disappeared would look
/// like a slow one.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// A connection that sends the token, if there is one, with every request.
pub type Connection = InterceptedService<Channel, Bearer>;

/// The address of the service and the caller's token.
#[derive(Clone, Debug, clap::Args)]
pub struct Address {
    /// Where the tallyhouse is.
    #[arg(long, env = "TALLYHOUSE_ADDRESS", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    address: String,
    /// The bearer token, if the service requires one.
    #[arg(long, env = "TALLYHOUSE_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<Secret>,
    /// A PEM file with the certificate authorities to trust for https. Default: those of the
    /// system.
    #[arg(long, env = "TALLYHOUSE_CA_FILE", value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

/// Adds the token, if there is one, to requests.
#[derive(Clone, Debug)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl Bearer {
    fn new(token: Option<&Secret>) -> anyhow::Result<Self> {
        let Some(token) = token.map(|token| token.expose().trim()).filter(|token| !token.is_empty()) else {
            return Ok(Self(None));
        };
        let value = format!("Bearer {token}").parse::<MetadataValue<Ascii>>();
        let mut value = value.ok().context("the token has characters that no token has")?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Address {
    /// The address, for a program that does not read the command line.
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into(), token: None, ca_file: None }
    }

    /// The same address with another token.
    pub fn with_token(&self, token: String) -> Self {
        Self { token: Some(Secret::new(token)), ..self.clone() }
    }

    /// The certificate authorities to trust.
    fn tls(&self) -> anyhow::Result<ClientTlsConfig> {
        let Some(path) = &self.ca_file else { return Ok(ClientTlsConfig::new().with_native_roots()) };
        let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
    }

    /// The address for requests over HTTP.
    pub fn url(&self) -> String {
        if self.address.contains("://") { self.address.clone() } else { format!("http://{}", self.address) }
    }

    /// The token to send, if there is one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.expose().trim()).filter(|token| !token.is_empty())
    }

    /// Connects. The connection is re-established when it is lost.
    pub async fn connect(&self) -> anyhow::Result<Connection> {
        let bearer = Bearer::new(self.token.as_ref())?;
        let address = self.url();
        anyhow::ensure!(
            address.starts_with("http://") || address.starts_with("https://"),
            "cannot use {address}: it must be an http:// or https:// URL"
        );
        let endpoint = Endpoint::from_shared(address.clone())
            .map_err(|error| anyhow::anyhow!("the address {address} is wrong: {error}"))?
            .connect_timeout(CONNECT_WAIT)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_INTERVAL)
            .keep_alive_while_idle(true);
        let endpoint = if address.starts_with("https://") { endpoint.tls_config(self.tls()?)? } else { endpoint };
        let channel = endpoint.connect().await.map_err(|error| {
            let cause = anyhow::Error::from(error);
            anyhow::anyhow!(
                "no tallyhouse answers at {address} ({}); start one with `tallyhouse dev`",
                cause.root_cause()
            )
        })?;
        check_is_tallyhouse(&address, channel.clone()).await?;
        Ok(InterceptedService::new(channel, bearer))
    }
}

/// Checks that the address belongs to a Tallyhouse service. Fails only if it certainly is something
/// else, which would otherwise be treated as a lost connection and retried.
async fn check_is_tallyhouse(address: &str, channel: Channel) -> anyhow::Result<()> {
    let mut health = HealthClient::new(channel);
    let asked = health.check(HealthCheckRequest::default()).map_err(|status| status.code());
    match tokio::time::timeout(CHECK_WAIT, asked).await {
        // Cut connections and other protocols come as these.
        Ok(Err(Code::Unknown | Code::Internal | Code::Unavailable | Code::Cancelled)) => {}
        _ => return Ok(()),
    }
    let client = reqwest::Client::builder().http1_only().no_proxy().timeout(CHECK_WAIT).tls_certs_only([]).build()?;
    let Ok(answer) = client.get(format!("{}/healthz", address.trim_end_matches('/'))).send().await else {
        return Ok(());
    };
    // A proxy whose tallyhouse is away says so with these.
    if answer.status().is_server_error() || answer.status() == StatusCode::TOO_MANY_REQUESTS {
        return Ok(());
    }
    let is_clickhouse = answer.headers().keys().any(|name| name.as_str().starts_with("x-clickhouse"));
    let text = answer.text().await.unwrap_or_default();
    if text.contains("\"status\"") {
        return Ok(());
    }
    if is_clickhouse || text.to_lowercase().contains("clickhouse") {
        anyhow::bail!(
            "what answers at {address} is a ClickHouse, not a tallyhouse: name the address that the service prints as \
             \"gRPC, grpc-web, REST\" (port 8080 unless the setting listen says otherwise)"
        );
    }
    anyhow::bail!("what answers at {address} is not a tallyhouse; name the address of one with --address")
}

/// Describes a status, with every invalid field.
pub fn explain(status: &Status) -> anyhow::Error {
    let fields: Vec<String> = status
        .get_details_bad_request()
        .map(|details| details.field_violations)
        .unwrap_or_default()
        .into_iter()
        .map(|violation| format!("{} {}", violation.field, violation.description))
        .collect();
    let mut message =
        if status.message().is_empty() { status.code().description() } else { status.message() }.to_owned();
    // A connection that failed says why only at the very bottom.
    if let Some(cause) = deepest_cause(status).filter(|cause| !message.contains(cause)) {
        message = format!("{message}: {cause}");
    }
    match (status.code(), fields.is_empty()) {
        (Code::Unimplemented, _) => {
            anyhow::anyhow!("what answers there does not know this request ({message}); is it a tallyhouse of today?")
        }
        (Code::Unauthenticated, _) => anyhow::anyhow!("{message}: give one with --token or TALLYHOUSE_TOKEN"),
        (_, false) => anyhow::anyhow!("{message}: {}", fields.join("; ")),
        (_, true) => anyhow::anyhow!("{message}"),
    }
}

fn deepest_cause(status: &Status) -> Option<String> {
    let mut cause = std::error::Error::source(status)?;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    Some(cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_there_is_said_plainly() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = Address::new(free.to_string()).connect().await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("no tallyhouse answers at http://{free}")), "{error}");
        assert!(error.ends_with("start one with `tallyhouse dev`"), "{error}");
    }

    #[test]
    fn every_field_at_fault_is_named() {
        let details = tonic_types::ErrorDetails::with_bad_request(vec![
            tonic_types::FieldViolation::new("window", "is required"),
            tonic_types::FieldViolation::new("limit", "must be 1 to 1000"),
        ]);
        let status = Status::with_error_details(Code::InvalidArgument, "validation failed", details);
        assert_eq!(explain(&status).to_string(), "validation failed: window is required; limit must be 1 to 1000");
    }
}
