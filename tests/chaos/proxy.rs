//! The way between the service and ClickHouse, where inserts go astray.
//!
//! One request a connection, each taken whole before any of it is passed on,
//! so that how much of it arrives is decided here.

use std::collections::{HashSet, VecDeque};
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::fault::{InsertFault, Kind, Tally};
use crate::http::Request;

/// A proxy in front of one ClickHouse. Dropping it closes it.
pub(crate) struct Proxy {
    pub(crate) url: String,
    road: Arc<Road>,
    /// Copies of inserts that are still to arrive.
    repeats: TaskTracker,
    _stop: DropGuard,
}

/// What the connections share.
struct Road {
    clickhouse: u16,
    tally: Arc<Tally>,
    armed: Mutex<Armed>,
    /// Inserts that were handed over whole.
    inserts: watch::Sender<u64>,
    /// Inserts under a token that was seen before.
    repeated: watch::Sender<u64>,
    tokens: Mutex<HashSet<String>>,
    repeats: TaskTracker,
}

/// Faults that wait for their request.
#[derive(Default)]
struct Armed {
    inserts: VecDeque<InsertFault>,
    /// Whether the connection is cut; else there is an error.
    look_ups: VecDeque<bool>,
    fills: u32,
}

impl Proxy {
    /// In front of the ClickHouse on this port of this machine.
    pub(crate) async fn start(clickhouse: u16, tally: Arc<Tally>) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("http://{}", listener.local_addr()?);
        let repeats = TaskTracker::new();
        let road = Arc::new(Road {
            clickhouse,
            tally,
            armed: Mutex::default(),
            inserts: watch::Sender::new(0),
            repeated: watch::Sender::new(0),
            tokens: Mutex::default(),
            repeats: repeats.clone(),
        });
        let stop = CancellationToken::new();
        let (serving, stopped) = (Arc::clone(&road), stop.clone());
        tokio::spawn(async move {
            while let Some(Ok((client, _))) = stopped.run_until_cancelled(listener.accept()).await {
                let (road, stopped) = (Arc::clone(&serving), stopped.clone());
                // A connection that breaks is nothing to report here.
                tokio::spawn(async move { stopped.run_until_cancelled(road.serve(client)).await });
            }
        });
        Ok(Self { url, road, repeats, _stop: stop.drop_guard() })
    }

    pub(crate) fn arm_insert(&self, fault: InsertFault) {
        self.road.armed.lock().inserts.push_back(fault);
    }

    pub(crate) fn arm_look_up(&self, cut: bool) {
        self.road.armed.lock().look_ups.push_back(cut);
    }

    pub(crate) fn arm_fill(&self) {
        self.road.armed.lock().fills += 1;
    }

    /// From now on nothing goes wrong, and what was delayed has arrived.
    pub(crate) async fn calm(&self) {
        *self.road.armed.lock() = Armed::default();
        self.repeats.close();
        self.repeats.wait().await;
    }

    /// Tells of inserts that have reached ClickHouse whole.
    pub(crate) fn inserts(&self) -> watch::Receiver<u64> {
        self.road.inserts.subscribe()
    }

    /// Tells of inserts that were seen before.
    pub(crate) fn repeated(&self) -> watch::Receiver<u64> {
        self.road.repeated.subscribe()
    }
}

impl Road {
    async fn serve(&self, mut client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let Some(request) = Request::read(&mut client).await? else { return Ok(()) };
        if let Some(token) = request.insert_token() {
            return self.insert(client, request, token).await;
        }
        if request.is_look_up() {
            self.tally.add(Kind::LookUp);
            let fault = self.armed.lock().look_ups.pop_front();
            if let Some(cut) = fault {
                self.tally.add(Kind::LookUpFails);
                return if cut { Ok(()) } else { refuse(&mut client, 241).await };
            }
        } else if request.is_fill() {
            let is_cut = {
                let mut armed = self.armed.lock();
                let cuts = armed.fills > 0;
                armed.fills -= u32::from(cuts);
                cuts
            };
            if is_cut {
                self.tally.add(Kind::CutFill);
                let answer = self.exchange(&request.alone()).await?;
                return client.write_all(&answer[..answer.len() * 2 / 3]).await;
            }
        }
        self.pass(client, &request).await
    }

    async fn insert(&self, mut client: TcpStream, request: Request, token: String) -> io::Result<()> {
        if !self.tokens.lock().insert(token) {
            self.repeated.send_modify(|repeated| *repeated += 1);
        }
        if request.is_cut {
            // The service went away in the middle, and so does its insert.
            return self.send(&request.alone()).await.map(drop);
        }
        let fault = self.armed.lock().inserts.pop_front();
        let Some(fault) = fault else { return self.pass(client, &request).await };
        match fault {
            InsertFault::LoseAnswer { hold } => {
                self.exchange_insert(&request).await?;
                self.tally.add(if hold { Kind::HoldAnswer } else { Kind::LoseAnswer });
                if hold {
                    gone(&mut client).await; // Until the service gives up.
                }
                Ok(())
            }
            InsertFault::CutRequest { percent } => {
                let bytes = request.alone();
                self.tally.add(Kind::CutRequest);
                self.send(&bytes[..bytes.len() * percent as usize / 100]).await.map(drop)
            }
            InsertFault::CutAnswer => {
                let answer = self.exchange_insert(&request).await?;
                self.tally.add(Kind::CutAnswer);
                client.write_all(&answer[..answer.len() / 2]).await
            }
            InsertFault::Refuse { code, done } => {
                if done {
                    self.exchange_insert(&request).await?;
                }
                self.tally.add(match (code, done) {
                    (252, false) => Kind::TooManyParts,
                    (252, true) => Kind::TooManyPartsDone,
                    (_, false) => Kind::MemoryLimit,
                    (_, true) => Kind::MemoryLimitDone,
                });
                refuse(&mut client, code).await
            }
            InsertFault::Repeat => {
                self.repeat(&request);
                self.pass(client, &request).await
            }
        }
    }

    /// Sends an insert once more, after others.
    fn repeat(&self, request: &Request) {
        let (port, bytes, tally) = (self.clickhouse, request.alone(), Arc::clone(&self.tally));
        let mut inserts = self.inserts.subscribe();
        let later = *inserts.borrow() + 3;
        self.repeats.spawn(async move {
            let patience = std::time::Duration::from_millis(300);
            let _ = tokio::time::timeout(patience, inserts.wait_for(|inserts| *inserts >= later)).await;
            if exchange(port, &bytes).await.is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200")) {
                tally.add(Kind::RepeatInsert);
            }
        });
    }

    /// Connects and sends, and leaves the answer to be read.
    async fn send(&self, bytes: &[u8]) -> io::Result<TcpStream> {
        send(self.clickhouse, bytes).await
    }

    async fn exchange(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        exchange(self.clickhouse, bytes).await
    }

    async fn exchange_insert(&self, request: &Request) -> io::Result<Vec<u8>> {
        let mut clickhouse = self.send(&request.alone()).await?;
        self.inserts.send_modify(|inserts| *inserts += 1);
        read_to_end(&mut clickhouse).await
    }

    /// Passes a request on, and its answer back. When one side goes, the other
    /// is let go too.
    async fn pass(&self, mut client: TcpStream, request: &Request) -> io::Result<()> {
        let mut clickhouse = self.send(&request.alone()).await?;
        if request.insert_token().is_some() {
            self.inserts.send_modify(|inserts| *inserts += 1);
        }
        let (mut from_client, mut to_client) = client.split();
        tokio::select! {
            copied = tokio::io::copy(&mut clickhouse, &mut to_client) => copied.map(drop),
            () = gone(&mut from_client) => Ok(()),
        }
    }
}

/// Waits until the other side has closed the connection. It has nothing more
/// to say before that.
async fn gone(stream: &mut (impl AsyncRead + Unpin)) {
    let _ = stream.read_u8().await;
}

async fn send(port: u16, bytes: &[u8]) -> io::Result<TcpStream> {
    let mut clickhouse = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    clickhouse.set_nodelay(true)?;
    clickhouse.write_all(bytes).await?;
    Ok(clickhouse)
}

async fn exchange(port: u16, bytes: &[u8]) -> io::Result<Vec<u8>> {
    read_to_end(&mut send(port, bytes).await?).await
}

async fn read_to_end(clickhouse: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    clickhouse.read_to_end(&mut answer).await?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(answer)
}

/// Answers as an overloaded ClickHouse does.
async fn refuse(client: &mut TcpStream, code: u32) -> io::Result<()> {
    let (name, text) = match code {
        252 => ("TOO_MANY_PARTS", "Too many parts (3001) in table 'events'. Merges are processing slower than inserts"),
        _ => ("MEMORY_LIMIT_EXCEEDED", "(total) memory limit exceeded: would use 4.01 GiB"),
    };
    let body = format!("Code: {code}. DB::Exception: {text}. ({name}) (version 26.7.2.1)\n");
    let answer = format!(
        "HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\nX-ClickHouse-Exception-Code: {code}\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    client.write_all(answer.as_bytes()).await
}
