//! A ClickHouse server for a test, with a disk for backups. It is the engine that services embed, started with a
//! configuration of its own: services reach it by its URL.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::service::{TestService, eventually};

const DISK: &str = "<storage_configuration><disks><backups><type>local</type><path>{dir}/backups/</path></backups>\
                    </disks></storage_configuration></clickhouse>";

pub(crate) struct ClickhouseServer {
    child: Child,
    pub(crate) url: String,
    _dir: tempfile::TempDir,
}

impl ClickhouseServer {
    /// Starts one with the version, the users and the passwords of the engine of this service, and with no tables.
    pub(crate) async fn like_engine_of(service: &TestService) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
        let engine_dir = service.data_dir().join("clickhouse");
        let engine_port = service.clickhouse_url.rsplit(':').next().unwrap();
        let moved = |text: &str| text.replace(engine_dir.to_str().unwrap(), dir.path().to_str().unwrap());
        for directory in ["etc/functions", "data", "log", "backups"] {
            std::fs::create_dir_all(dir.path().join(directory)).unwrap();
        }
        let read = |file: &str| std::fs::read_to_string(engine_dir.join("etc").join(file)).unwrap();
        let config = moved(&read("config.xml"))
            .replace(&format!("<http_port>{engine_port}<"), &format!("<http_port>{port}<"))
            .replace("<backups>", "<backups><allowed_disk>backups</allowed_disk>")
            .replace("</clickhouse>", &DISK.replace("{dir}", dir.path().to_str().unwrap()));
        std::fs::write(dir.path().join("etc/config.xml"), config).unwrap();
        std::fs::write(dir.path().join("etc/users.xml"), moved(&read("users.xml"))).unwrap();

        let backups = dir.path().join("backups");
        let mut arguments: Vec<String> = command_line(service.engine_pid())
            .iter()
            .map(|argument| if argument == engine_port { port.clone() } else { moved(argument) })
            .collect();
        let parent = arguments.iter().position(|argument| argument == "--parent").unwrap();
        arguments[parent + 1] = std::process::id().to_string();
        arguments.splice(parent..parent, ["--writable".to_owned(), backups.to_str().unwrap().to_owned()]);
        let child = Command::new(env!("CARGO_BIN_EXE_tallyhouse"))
            .args(&arguments[1..])
            // It ends with its input.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, url: format!("http://127.0.0.1:{port}"), _dir: dir };
        let ping = format!("{}/ping", server.url);
        eventually("a ClickHouse server", || async { service.http.get(&ping).send().await.is_ok() }).await;
        server
    }
}

/// The arguments of a process, with its name.
fn command_line(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("cmdline")).unwrap();
    text.trim_end_matches('\0').split('\0').map(str::to_owned).collect()
}

impl Drop for ClickhouseServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
