//! A ClickHouse server is reached over TLS, with a certificate that is checked.

use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::generate_simple_self_signed;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::service::TestService;

/// Ends TLS in front of a ClickHouse. Returns its address and its certificate in PEM.
async fn terminate_tls(clickhouse_url: &str) -> (String, String) {
    let made = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let target = clickhouse_url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, target) = (acceptor.clone(), target.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut server = TcpStream::connect(target).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
            });
        }
    });
    (url, made.cert.pem())
}

fn migrate(service: &TestService, url: &str, authorities: &std::path::Path) -> Output {
    let password = std::fs::read_to_string(service.data_dir().join("clickhouse/password")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
        .args(["migrate", "--clickhouse-user", "tallyhouse", "--clickhouse-database", "tallyhouse_tls", "--data-dir"])
        .arg(dir.path())
        .env("TALLYHOUSE_CLICKHOUSE_URL", url)
        .env("TALLYHOUSE_CLICKHOUSE_PASSWORD", password.trim())
        .env("SSL_CERT_FILE", authorities)
        .output()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clickhouse_is_reached_over_checked_tls() {
    let service = TestService::new().await;
    let (url, pem) = terminate_tls(&service.clickhouse_url).await;
    let dir = tempfile::tempdir().unwrap();
    let (trusted, other) = (dir.path().join("trusted.pem"), dir.path().join("other.pem"));
    std::fs::write(&trusted, pem).unwrap();
    std::fs::write(&other, generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem()).unwrap();

    let refused = tokio::task::block_in_place(|| migrate(&service, &url, &other));
    assert!(!refused.status.success(), "a certificate of nobody is trusted");
    let done = tokio::task::block_in_place(|| migrate(&service, &url, &trusted));
    assert!(done.status.success(), "{done:?}");
    assert_eq!(service.sql("EXISTS TABLE tallyhouse_tls.events").await, "1");
}
