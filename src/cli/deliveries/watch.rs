//! `tallyhouse deliveries watch`: the state of subscriptions, again and again.

use std::collections::HashMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};

use super::{Output, path};
use crate::cli::sparkline::grouped;
use crate::cli::style::{Style, printable};
use crate::cli::table::Table;
use crate::cli::time_args::{self, Precision, readable_duration};
use crate::cli::{OutputError, print};

/// What the event pipeline is called among subscriptions. (No subscription has this name.)
const PIPELINE: &str = "(event pipeline)";
/// Clears a terminal and goes to its first line.
const CLEAR: &str = "\u{1b}[H\u{1b}[2J";

/// What to watch.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// The subscription. Without it, all of them, and the event pipeline.
    name: Option<String>,
    /// The time between two looks.
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = time_args::parse_duration)]
    every: Duration,
    /// Stop after this number of looks.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    output: Output,
}

/// The states at one time.
struct Look {
    at: Instant,
    states: Vec<(String, Value)>,
}

impl WatchArgs {
    /// Shows the states until Ctrl-C: as a table that is drawn again where that is possible, and else in lines.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut last = HashMap::new();
        for number in 1_u64.. {
            match self.look().await {
                Ok(Look { at, states }) => {
                    let rows: Vec<Row> = states.iter().map(|(name, state)| Row::new(name, state, &last, at)).collect();
                    self.show(&rows)?;
                    last = states.into_iter().map(|(name, state)| (name, (at, handled(&state)))).collect();
                }
                Err(error) if number == 1 => return Err(error),
                // The service may be restarting.
                Err(error) => print(&format!("{}  no answer: {error}\n", clock()))?,
            }
            if self.limit.is_some_and(|limit| number >= limit) {
                break;
            }
            tokio::time::sleep(self.every).await;
        }
        Ok(())
    }

    fn show(&self, rows: &[Row]) -> Result<(), OutputError> {
        if self.output.json {
            rows.iter().try_for_each(|row| print(&format!("{}\n", row.json())))
        } else if std::io::stdout().is_terminal() {
            print(&format!("{CLEAR}{}", table(rows, Style::stdout(), &clock())))
        } else {
            print(&lines(rows, &clock()))
        }
    }

    async fn look(&self) -> anyhow::Result<Look> {
        let names: Vec<String> = match &self.name {
            Some(name) => vec![name.clone()],
            None => self.names().await?,
        };
        let mut states = Vec::with_capacity(names.len() + 1);
        for name in names {
            match self.output.ask(Method::GET, &path(&name, &["status"]), None).await {
                Ok(state) => states.push((name, state)),
                // It may have been deleted since it was listed.
                Err(_) if self.name.is_none() => {}
                Err(error) => return Err(error),
            }
        }
        // There is none on most services.
        if self.name.is_none()
            && let Ok(state) = self.output.ask(Method::GET, &["pipeline", "status"], None).await
        {
            states.push((PIPELINE.to_owned(), state));
        }
        Ok(Look { at: Instant::now(), states })
    }

    async fn names(&self) -> anyhow::Result<Vec<String>> {
        let answer = self.output.ask(Method::GET, &["api", "v1", "subscriptions"], None).await?;
        let all = answer["subscriptions"].as_array().into_iter().flatten();
        Ok(all.filter_map(|one| one["name"].as_str().map(str::to_owned)).collect())
    }
}

/// The time of day in UTC.
fn clock() -> String {
    time_args::readable(time_args::now(), Precision::ClockMilli)
}

/// Events that ended since the service was started.
fn handled(state: &Value) -> u64 {
    count(state, "processed") + count(state, "failed")
}

fn count(state: &Value, field: &str) -> u64 {
    state[field].as_u64().unwrap_or_default()
}

/// A subscription, as it is shown.
struct Row {
    name: String,
    state: String,
    /// Events that wait, of those that were read; whether there may be more.
    waiting: u64,
    is_more: bool,
    lag: Duration,
    /// The oldest event that waits.
    oldest: Option<String>,
    /// Events that ended in a second, since the last look.
    rate: Option<f64>,
    retries: u64,
    dead_letters: u64,
}

impl Row {
    fn new(name: &str, state: &Value, last: &HashMap<String, (Instant, u64)>, at: Instant) -> Self {
        let rate = |(before, then): &(Instant, u64)| {
            let seconds = at.duration_since(*before).as_secs_f64();
            // The counts begin again with the service.
            let events = u32::try_from(handled(state).saturating_sub(*then)).unwrap_or(u32::MAX);
            (seconds > 0.0).then(|| f64::from(events) / seconds)
        };
        let catching_up = state["catching_up_to"].as_str();
        Self {
            name: name.to_owned(),
            state: words(state),
            waiting: count(state, "waiting"),
            is_more: state["is_full"] == true || catching_up.is_some(),
            lag: Duration::from_millis(count(state, "lag_ms").max(count(state, "oldest_ms"))),
            oldest: oldest(&state["oldest"]),
            rate: last.get(name).and_then(rate),
            retries: count(state, "retries"),
            dead_letters: count(state, "dead_letters"),
        }
    }

    fn events(&self) -> String {
        format!("{}{}", if self.is_more { "≥" } else { "" }, grouped(self.waiting))
    }

    fn lag(&self) -> String {
        match self.waiting {
            0 => "-".to_owned(),
            // Milliseconds would change with every look.
            _ => readable_duration(Duration::from_secs(self.lag.as_secs())).to_string(),
        }
    }

    fn rate(&self) -> String {
        self.rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}"))
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "state": self.state,
            "waiting": self.waiting,
            "may_be_more": self.is_more,
            "lag_ms": u64::try_from(self.lag.as_millis()).unwrap_or(u64::MAX),
            "oldest": self.oldest,
            "events_per_second": self.rate,
            "retries": self.retries,
            "dead_letters": self.dead_letters,
        })
    }
}

/// The state in a word, or what is the matter.
fn words(state: &Value) -> String {
    let text = |field: &str| state[field].as_str().filter(|text| !text.is_empty());
    match (state["is_paused"] == true, text("handler_error"), text("catching_up_to"), text("redis")) {
        (true, Some(error), _, _) => format!("paused: {error}"),
        (true, None, _, _) => "paused".to_owned(),
        (_, Some(error), _, _) => format!("failing: {error}"),
        (_, _, Some(time), _) => format!("catching up, at {time}"),
        (_, _, _, Some(redis)) if redis != "up" => format!("Redis is {redis}"),
        _ if count(state, "missed_segments") > 0 => "has missed events".to_owned(),
        _ => "active".to_owned(),
    }
}

/// The user and the seq of an event, or its id.
fn oldest(event: &Value) -> Option<String> {
    let id = event["event_id"].as_str()?;
    match (event["user_id"].as_str(), event["seq"].as_u64()) {
        (Some(user), Some(seq)) => Some(format!("{user} #{seq}")),
        _ => Some(id.to_owned()),
    }
}

/// All, as a table for a terminal.
fn table(rows: &[Row], style: Style, now: &str) -> String {
    let title = format!("{}  {}\n", style.bold("deliveries"), style.dim(now));
    if rows.is_empty() {
        return format!(
            "{title}there are no subscriptions; create one: tallyhouse deliveries create NAME --webhook URL\n"
        );
    }
    let mut table = Table::new().text("subscription").number("waiting").number("lag").number("events/s");
    table = table.number("retries").number("dead letters").text("oldest").text("state");
    for row in rows {
        table.row([
            row.name.clone(),
            row.events(),
            row.lag(),
            row.rate(),
            grouped(row.retries),
            grouped(row.dead_letters),
            row.oldest.clone().unwrap_or_else(|| "-".to_owned()),
            row.state.clone(),
        ]);
    }
    title + &table.render(style)
}

/// Each in a line of its own, for files and other programs.
fn lines(rows: &[Row], now: &str) -> String {
    let line = |row: &Row| {
        format!(
            "{now} {} waiting={} lag={} events/s={} retries={} dead_letters={} oldest={:?} state={:?}\n",
            row.name,
            row.events(),
            row.lag().replace(' ', ""),
            row.rate(),
            row.retries,
            row.dead_letters,
            printable(row.oldest.as_deref().unwrap_or("-")),
            printable(&row.state),
        )
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> Value {
        json!({
            "is_paused": false, "handler_error": null, "waiting": 1_200, "lag_ms": 65_900, "retries": 7, "dead_letters": 3,
            "oldest": { "event_id": "e-1", "user_id": "ann", "seq": 4 }, "processed": 90, "failed": 10, "is_full": false,
            "missed_segments": 0, "catching_up_to": null,
        })
    }

    fn row(change: impl Fn(&mut Value), last: Option<u64>) -> Row {
        let mut state = state();
        change(&mut state);
        let at = Instant::now();
        let before = last.map(|handled| ("orders".to_owned(), (at - Duration::from_secs(2), handled)));
        Row::new("orders", &state, &before.into_iter().collect(), at)
    }

    #[test]
    fn a_row_has_the_lag_the_rate_and_what_is_the_matter() {
        let now = "12:00:00";
        let text = table(&[row(|_| {}, Some(50))], Style::plain(), now);
        let expected = "deliveries  12:00:00\n\
             subscription  waiting    lag  events/s  retries  dead letters  oldest  state\n\
             orders          1,200  1m 5s      25.0        7             3  ann #4  active\n";
        assert_eq!(text, expected);
        let said = lines(&[row(|_| {}, None)], now);
        let expected = "12:00:00 orders waiting=1,200 lag=1m5s events/s=- retries=7 dead_letters=3 oldest=\"ann #4\" state=\"active\"\n";
        assert_eq!(said, expected);
        assert_eq!(row(|_| {}, Some(5_000)).rate, Some(0.0), "the service has begun again");
        assert!(table(&[], Style::plain(), now).contains("deliveries create"));
    }

    #[test]
    fn states_are_said_in_words() {
        let check = |field: &str, value: Value, expected: &str| {
            assert_eq!(row(|state| state[field] = value.clone(), None).state, expected);
        };
        check("is_paused", json!(true), "paused");
        check("handler_error", json!("no route"), "failing: no route");
        check("catching_up_to", json!("2026-02-10T21:10:00Z"), "catching up, at 2026-02-10T21:10:00Z");
        check("missed_segments", json!(1), "has missed events");
        check("redis", json!("away"), "Redis is away");
        assert_eq!(row(|state| state["is_full"] = json!(true), None).events(), "≥1,200");
        let none = row(|state| (state["waiting"], state["oldest"]) = (json!(0), Value::Null), None);
        assert_eq!((none.lag(), none.oldest), ("-".to_owned(), None));
    }
}
