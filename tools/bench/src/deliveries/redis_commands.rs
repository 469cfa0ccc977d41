//! The commands that a Redis was sent, recorded by `MONITOR` (<https://redis.io/docs/latest/commands/monitor/>), and sent
//! again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use redis::ConnectionLike as _;
use tallyhouse_testkit::TestRedis;

/// Commands that are sent at a time.
const PIPELINE_COMMANDS: usize = 1_000;
/// What ends a recording.
const END: &str = "the recording ends here";
/// Commands that make connections, or scripts, and not records.
const LEFT_OUT: [&str; 8] = ["CLIENT", "COMMAND", "ECHO", "HELLO", "INFO", "MONITOR", "PING", "SELECT"];

/// A recording under way.
pub(super) struct Recording {
    reader: JoinHandle<std::io::Result<RedisCommands>>,
}

/// Recorded commands.
#[derive(Default)]
pub(super) struct RedisCommands {
    scripts: Vec<Vec<u8>>,
    commands: Vec<Vec<Vec<u8>>>,
}

impl Recording {
    /// Begins to record everything that this Redis is sent.
    pub(super) fn begin(redis: &TestRedis) -> anyhow::Result<Self> {
        let url = redis.url();
        let address = url.trim_start_matches("redis://").trim_end_matches('/');
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(b"MONITOR\r\n")?;
        let mut lines = BufReader::new(stream);
        let mut answer = String::new();
        lines.read_line(&mut answer)?;
        anyhow::ensure!(answer.trim_end() == "+OK", "MONITOR was answered with {answer}");
        Ok(Self { reader: std::thread::spawn(move || RedisCommands::read(lines)) })
    }

    /// Ends it.
    pub(super) fn end(self, redis: &TestRedis) -> anyhow::Result<RedisCommands> {
        let _: String = redis.ask(&["ECHO", END]);
        let commands = self.reader.join().ok().context("the recording failed")??;
        anyhow::ensure!(!commands.commands.is_empty() && !commands.scripts.is_empty(), "nothing was recorded");
        Ok(commands)
    }
}

impl RedisCommands {
    fn read(lines: BufReader<TcpStream>) -> std::io::Result<Self> {
        let mut recorded = Self::default();
        for line in lines.split(b'\n') {
            let Some(words) = words(&line?) else { continue };
            match words.as_slice() {
                [name, end] if name == b"ECHO" && end == END.as_bytes() => break,
                [name, load, script] if is(name, "SCRIPT") && is(load, "LOAD") => recorded.scripts.push(script.clone()),
                [name, ..] if LEFT_OUT.iter().any(|other| is(name, other)) => {}
                _ => recorded.commands.push(words),
            }
        }
        Ok(recorded)
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.commands.len()
    }

    /// Sends them over one connection to a Redis that is emptied first; returns how long that takes until all are answered.
    pub(super) fn send_to(&self, redis: &TestRedis) -> anyhow::Result<Duration> {
        let mut connection = redis::Client::open(redis.url())?.get_connection()?;
        redis::cmd("FLUSHALL").exec(&mut connection)?;
        for script in &self.scripts {
            redis::cmd("SCRIPT").arg("LOAD").arg(script.as_slice()).exec(&mut connection)?;
        }
        let pipelines: Vec<(Vec<u8>, usize)> = self.commands.chunks(PIPELINE_COMMANDS).map(packed).collect();
        let begun = Instant::now();
        for (bytes, commands) in &pipelines {
            let answers = connection.req_packed_commands(bytes, 0, *commands)?;
            // What is refused is done quickly.
            let refused = answers.iter().find(|answer| matches!(answer, redis::Value::ServerError(_)));
            anyhow::ensure!(refused.is_none(), "a command was answered with {refused:?}");
        }
        Ok(begun.elapsed())
    }
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

/// Commands as they are sent, and how many.
fn packed(commands: &[Vec<Vec<u8>>]) -> (Vec<u8>, usize) {
    let mut pipeline = redis::pipe();
    for words in commands {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.as_slice());
        }
        pipeline.add_command(command);
    }
    (pipeline.get_packed_pipeline(), commands.len())
}

/// The words of a command, from a line such as `+1339518083.107412 [0 127.0.0.1:60866] "keys" "*"`. None when a script called
/// it, whose source is `[0 lua]`.
fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
    let begin = line.windows(3).position(|some| some == b"] \"")?;
    if line.get(..begin)?.ends_with(b" lua") {
        return None;
    }
    let mut words = Vec::new();
    let mut rest = line.get(begin + 2..)?;
    while let Some(quoted) = rest.strip_prefix(b"\"") {
        let (word, after) = unquoted(quoted)?;
        words.push(word);
        rest = after.strip_prefix(b" ").unwrap_or(after);
    }
    (!words.is_empty()).then_some(words)
}

/// A word up to its quotation mark, and what comes behind. (`sdscatrepr` of Redis writes it.)
fn unquoted(mut text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut word = Vec::new();
    loop {
        let (byte, rest) = match text {
            [b'"', rest @ ..] => return Some((word, rest)),
            [b'\\', b'x', high, low, rest @ ..] => ((hex(*high)? << 4) | hex(*low)?, rest),
            [b'\\', escaped, rest @ ..] => (control(*escaped), rest),
            [byte, rest @ ..] => (*byte, rest),
            [] => return None,
        };
        word.push(byte);
        text = rest;
    }
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

const fn control(escaped: u8) -> u8 {
    match escaped {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'a' => 7,
        b'b' => 8,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_commands() {
        let line = br#"+1339518083.107412 [0 127.0.0.1:60866] "EVALSHA" "a \"b\" \\ \x00\xff\n\r\t\a\b" "" "] \"x""#;
        let expected: [&[u8]; 4] = [b"EVALSHA", b"a \"b\" \\ \0\xff\n\r\t\x07\x08", b"", b"] \"x"];
        assert_eq!(words(line).unwrap(), expected);
        assert_eq!(words(br#"+1339518083.1 [0 lua] "GET" "a""#), None);
        assert_eq!(words(br#"+1339518083.1 [0 127.0.0.1:1] "GET" "a"#), None, "cut off");
        assert_eq!(words(b"+OK"), None);
    }

    #[test]
    fn commands_are_packed_for_one_pipeline() {
        let commands = [vec![b"GET".to_vec(), b"a\0".to_vec()], vec![b"PING".to_vec()]];
        assert_eq!(packed(&commands), (b"*2\r\n$3\r\nGET\r\n$2\r\na\0\r\n*1\r\n$4\r\nPING\r\n".to_vec(), 2));
    }
}
