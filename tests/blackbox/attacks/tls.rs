//! Whoever listens on the way: TLS on the port.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::service::{TestService, eventually};
use crate::tokens::{SECRET, Signer};

struct Files {
    dir: tempfile::TempDir,
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (certificate, key) = (dir.path().join("certificate.pem"), dir.path().join("key.pem"));
        Self { dir, certificate, key }
    }

    fn settings(&self) -> [(&str, &str); 3] {
        [
            ("TALLYHOUSE_TLS_CERTIFICATE_FILE", self.certificate.to_str().unwrap()),
            ("TALLYHOUSE_TLS_KEY_FILE", self.key.to_str().unwrap()),
            ("TALLYHOUSE_AUTH_HS256_SECRET", SECRET),
        ]
    }

    /// Replaces both files, and returns the certificate.
    fn replace(&self) -> String {
        let made = certificate();
        replace(&self.key, &made.signing_key.serialize_pem());
        replace(&self.certificate, &made.cert.pem());
        made.cert.pem()
    }
}

fn certificate() -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap()
}

fn replace(path: &Path, text: &str) {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, text).unwrap();
    std::fs::rename(partial, path).unwrap();
}

/// A client that trusts this certificate and no other.
fn client(pem: &str) -> reqwest::Client {
    let certificate = reqwest::Certificate::from_pem(pem.as_bytes()).unwrap();
    // Each request by a connection of its own.
    reqwest::Client::builder().tls_certs_only([certificate]).pool_max_idle_per_host(0).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_certificate_is_used_without_a_restart() {
    let files = Files::new();
    let first = files.replace();
    let service = TestService::with_client(&files.settings(), client(&first)).await;
    assert!(service.url.starts_with("https://"));
    let token = Signer::secret(SECRET).token("acme", "ingest read");
    let top = |client: &reqwest::Client| client.get(format!("{}/users/top", service.url)).bearer_auth(&token).send();
    let answer = top(&service.http).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_2));
    let old = reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(first.as_bytes()).unwrap()]);
    let answer = top(&old.http1_only().build().unwrap()).await.unwrap();
    assert_eq!((answer.status().as_u16(), answer.version()), (200, reqwest::Version::HTTP_11));

    // The command line, with the certificate to trust and without.
    let run = |ca_file: Option<&Path>| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tallyhouse"));
        command.args(["top", "users", "--address", &service.url, "--token", &token]);
        if let Some(path) = ca_file {
            command.arg("--ca-file").arg(path);
        }
        tokio::task::block_in_place(|| command.stdin(Stdio::null()).output()).unwrap()
    };
    let output = run(Some(&files.certificate));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!run(None).status.success());

    // Plain text gets no answer that can be read.
    let address = service.url.strip_prefix("https://").unwrap();
    let mut plain = tokio::net::TcpStream::connect(address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut said = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), plain.read_to_end(&mut said)).await.expect("an end");
    assert!(!String::from_utf8_lossy(&said).contains("HTTP/1.1"), "{said:?}");

    // Half a replacement, and one that is none, change nothing.
    replace(&files.key, &certificate().signing_key.serialize_pem());
    eventually("a complaint", || async { service.stderr().contains("the previous one stays") }).await;
    assert_eq!(top(&service.http).await.unwrap().status(), 200);
    let second = client(&files.replace());
    eventually("the new certificate", || async { top(&second).await.is_ok_and(|answer| answer.status() == 200) }).await;
    assert!(top(&service.http).await.is_err(), "the old one is gone");
}

#[test]
fn an_unusable_certificate_prevents_the_start() {
    let files = Files::new();
    files.replace();
    let check = |certificate: &Path, key: &Path, setting: &str, problem: &str| {
        let data = tempfile::tempdir().unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data.path())
            .env("TALLYHOUSE_CLICKHOUSE_URL", "http://127.0.0.1:9")
            .env("TALLYHOUSE_TLS_CERTIFICATE_FILE", certificate)
            .env("TALLYHOUSE_TLS_KEY_FILE", key)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(setting) && said.contains(problem), "{said}");
        let path = if setting == "tls_key_file" { key } else { certificate };
        assert!(said.contains(path.to_str().unwrap()) && !said.contains("panicked"), "{said}");
    };
    let path = |name: &str| files.dir.path().join(name);
    std::fs::write(path("empty"), "").unwrap();
    std::fs::write(path("other.pem"), certificate().signing_key.serialize_pem()).unwrap();
    assert!(Command::new("mkfifo").arg(path("fifo")).status().unwrap().success());
    check(&path("none"), &files.key, "tls_certificate_file", "No such file");
    check(&path("empty"), &files.key, "tls_certificate_file", "no certificate");
    check(&path("fifo"), &files.key, "tls_certificate_file", "not a regular file");
    check(&files.certificate, &path("empty"), "tls_key_file", "no private key");
    check(&files.certificate, &path("other.pem"), "tls_key_file", "cannot be used with");
    check(&files.certificate, files.dir.path(), "tls_key_file", "not a regular file");
}
