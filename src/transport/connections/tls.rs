//! TLS on the port: a certificate and a key from files, which are reloaded when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;

use super::ConnectionIo;
use crate::config::Config;
use crate::regular_file;

/// How often the files are looked at.
const FILE_PAUSE: Duration = Duration::from_secs(1);
/// Longest a handshake may take.
const HANDSHAKE_WAIT_MAX: Duration = Duration::from_secs(10);
/// Largest file of certificates or of a key, in bytes.
const FILE_BYTES_MAX: usize = 1 << 20;
/// What is spoken inside, in the order of preference (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// The TLS settings cannot be used. Names the setting and the path.
#[derive(Debug, thiserror::Error)]
#[error("the setting {setting}: {message}")]
pub struct TlsError {
    setting: &'static str,
    message: String,
}

/// The certificate and the key of now.
pub struct Tls {
    certificate_file: PathBuf,
    key_file: PathBuf,
    loaded: RwLock<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// The files' contents.
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Tls {
    /// Reads the files that are configured; none when none are.
    ///
    /// # Errors
    /// When a file cannot be read or used, or the key is not that of the
    /// certificate.
    pub async fn open(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        if config.tls_certificate_file.is_empty() {
            return Ok(None);
        }
        let certificate_file = PathBuf::from(&config.tls_certificate_file);
        let key_file = PathBuf::from(&config.tls_key_file);
        let loaded = RwLock::new(load(&certificate_file, &key_file).await?);
        Ok(Some(Arc::new(Self { certificate_file, key_file, loaded })))
    }

    /// Reads the files again when they change, for ever. Files that cannot be
    /// used change nothing, as while only one of the two has been replaced.
    pub async fn keep_fresh(&self) {
        let mut last_complaint = String::new();
        loop {
            sleep(FILE_PAUSE).await;
            let complaint = self.refresh().await.err().map(|error| error.to_string()).unwrap_or_default();
            if !complaint.is_empty() && complaint != last_complaint {
                tracing::warn!(error = complaint, "could not reload the certificate; the previous one stays in use");
            }
            last_complaint = complaint;
        }
    }

    async fn refresh(&self) -> Result<(), TlsError> {
        let (certificate, key) = read(&self.certificate_file, &self.key_file).await?;
        {
            let loaded = self.loaded.read();
            if loaded.certificate == certificate && loaded.key == key {
                return Ok(());
            }
        }
        let loaded = parse(certificate, key, &self.certificate_file, &self.key_file)?;
        *self.loaded.write() = loaded;
        tracing::info!(file = %self.certificate_file.display(), "loaded a new certificate");
        Ok(())
    }

    /// Runs the TLS handshake. None if it fails.
    pub(in crate::transport) async fn accept(&self, io: ConnectionIo) -> Option<TlsStream<ConnectionIo>> {
        let config = Arc::clone(&self.loaded.read().config);
        let connection = Arc::clone(io.connection());
        match timeout(HANDSHAKE_WAIT_MAX, TlsAcceptor::from(config).accept(io)).await {
            Ok(Ok(stream)) => {
                connection.note_handshake();
                Some(stream)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                None
            }
            Err(_) => None,
        }
    }
}

async fn load(certificate_file: &std::path::Path, key_file: &std::path::Path) -> Result<Loaded, TlsError> {
    let (certificate, key) = read(certificate_file, key_file).await?;
    parse(certificate, key, certificate_file, key_file)
}

async fn read(certificate_file: &std::path::Path, key_file: &std::path::Path) -> Result<(Vec<u8>, Vec<u8>), TlsError> {
    let certificate = regular_file::read(certificate_file, FILE_BYTES_MAX).await;
    let certificate = certificate.map_err(|message| TlsError { setting: "tls_certificate_file", message })?;
    let key = regular_file::read(key_file, FILE_BYTES_MAX).await;
    let key = key.map_err(|message| TlsError { setting: "tls_key_file", message })?;
    Ok((certificate, key))
}

fn parse(
    certificate: Vec<u8>,
    key: Vec<u8>,
    certificate_file: &std::path::Path,
    key_file: &std::path::Path,
) -> Result<Loaded, TlsError> {
    let of_certificate = |problem: String| TlsError {
        setting: "tls_certificate_file",
        message: format!("{}: {problem}", certificate_file.display()),
    };
    let of_key =
        |problem: String| TlsError { setting: "tls_key_file", message: format!("{}: {problem}", key_file.display()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&certificate).collect();
    let chain = chain.map_err(|error| of_certificate(format!("it is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(of_certificate("it has no certificate in PEM".to_owned()));
    }
    let private_key = PrivateKeyDer::from_pem_slice(&key)
        .map_err(|error| of_key(format!("it has no private key in PEM (PKCS#8, PKCS#1 or SEC1): {error}")))?;
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| of_key(error.to_string()))?;
    let config = builder.with_no_client_auth().with_single_cert(chain, private_key);
    let mut config =
        config.map_err(|error| of_key(format!("it cannot be used with {}: {error}", certificate_file.display())))?;
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(Loaded { config: Arc::new(config), certificate, key })
}
