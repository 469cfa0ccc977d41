//! `tallyhouse events` and `tallyhouse event`: show stored events.

use std::process::ExitCode;

use anyhow::Context as _;
use tonic::Code;

use super::connection::{Address, Connection, explain};
use super::send::ndjson;
use super::style::{Style, printable};
use super::table::Table;
use super::time_args::{self, Precision, WindowArgs};
use crate::domain::Timestamp;
use crate::transport::proto;
use crate::transport::proto::query_service_client::QueryServiceClient;

/// Default number of events to show, and the most on one page.
const LIMIT_DEFAULT: u32 = 50;
const PAGE_EVENTS_MAX: u32 = 500;
/// Largest page that is read, in bytes: one of the largest events.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The events to list.
#[derive(Clone, Debug, clap::Args)]
pub struct EventsArgs {
    #[command(flatten)]
    address: Address,
    #[command(flatten)]
    window: WindowArgs,
    /// Only events of this campaign.
    #[arg(long, default_value = "", hide_default_value = true)]
    campaign: String,
    /// Only events of this user.
    #[arg(long, default_value = "", hide_default_value = true)]
    user: String,
    /// Only events of this type. Can be given up to 20 times.
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// How many events to show. Default: 50, or all with --follow-pages.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// Read all pages. Without it, one page of at most 500 events.
    #[arg(long)]
    follow_pages: bool,
    /// Print NDJSON.
    #[arg(long)]
    json: bool,
}

/// The event to show.
#[derive(Clone, Debug, clap::Args)]
pub struct EventArgs {
    /// The event's id.
    #[arg(value_name = "ID")]
    event_id: String,
    #[command(flatten)]
    address: Address,
    /// Print one line of NDJSON.
    #[arg(long)]
    json: bool,
}

impl EventsArgs {
    /// Lists the events, page by page.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let window = self.window.window(time_args::now())?;
        let mut client = client(self.address.connect().await?);
        let mut left = match (self.limit, self.follow_pages) {
            (Some(limit), _) => limit,
            (None, true) => u32::MAX,
            (None, false) => LIMIT_DEFAULT,
        };
        let mut request = proto::ListEventsRequest {
            window,
            campaign_id: self.campaign,
            user_id: self.user,
            types: self.types,
            page_size: 0,
            page_token: String::new(),
        };
        let mut shown = 0_usize;
        loop {
            request.page_size = left.min(PAGE_EVENTS_MAX);
            let page = client.list_events(request.clone()).await;
            let page = page.map_err(|status| explain(&status)).context("cannot list events")?.into_inner();
            super::print(&if self.json { render_ndjson(&page.events) } else { render(&page, shown) })?;
            shown += page.events.len();
            left = left.saturating_sub(u32::try_from(page.events.len()).unwrap_or(u32::MAX));
            if page.next_page_token.is_empty() {
                break;
            }
            if left == 0 || !self.follow_pages {
                if !self.json {
                    super::print(&Style::stdout().dim("more events exist: use --limit or --follow-pages\n"))?;
                }
                break;
            }
            request.page_token = page.next_page_token;
        }
        if shown == 0 && !self.json {
            super::print("no events\n")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl EventArgs {
    /// Reads the event and shows it.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let mut client = client(self.address.connect().await?);
        let answer = client.get_event(proto::GetEventRequest { event_id: self.event_id.clone() }).await;
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::NotFound => {
                eprintln!("there is no event {}", printable(&self.event_id));
                return Ok(ExitCode::from(super::EXIT_NEGATIVE));
            }
            Err(status) => return Err(explain(&status).context("cannot read the event")),
        };
        let stored = answer.event.context("the service sent no event")?;
        if self.json {
            super::print(&render_ndjson(&[stored]))?;
        } else {
            super::print(&render_one(&stored, Style::stdout()))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn client(channel: Connection) -> QueryServiceClient<Connection> {
    QueryServiceClient::new(channel).max_decoding_message_size(ANSWER_BYTES_MAX)
}

fn render_ndjson(events: &[proto::StoredEvent]) -> String {
    let lines = events.iter().filter_map(|stored| {
        let event = stored.event.as_ref()?;
        Some(ndjson::write(event, stored.received_at.as_ref()) + "\n")
    });
    lines.collect()
}

fn at(moment: Option<&prost_types::Timestamp>) -> Timestamp {
    moment.map(time_args::from_proto).unwrap_or_default()
}

/// A page as a table, with headings before the first line only.
fn render(page: &proto::ListEventsResponse, shown_before: usize) -> String {
    let mut table = Table::new().text("occurred at (UTC)").text("type").text("campaign").text("user").text("event id");
    for event in page.events.iter().filter_map(|stored| stored.event.as_ref()) {
        table.row([
            time_args::readable(at(event.occurred_at.as_ref()), Precision::Milli),
            event.r#type.clone(),
            event.campaign_id.clone(),
            event.user_id.clone(),
            event.event_id.clone(),
        ]);
    }
    if table.is_empty() {
        return String::new();
    }
    let text = table.render(Style::stdout());
    match text.split_once('\n') {
        Some((_, lines)) if shown_before > 0 => lines.to_owned(),
        _ => text,
    }
}

fn render_one(stored: &proto::StoredEvent, paint: Style) -> String {
    let event = stored.event.clone().unwrap_or_default();
    let fields = [
        ("event_id", event.event_id),
        ("type", event.r#type),
        ("campaign_id", event.campaign_id),
        ("creative_id", event.creative_id),
        ("source", event.source),
        ("user_id", event.user_id),
        ("occurred_at", event.occurred_at.as_ref().map(time_args::rfc3339).unwrap_or_default()),
        ("received_at", stored.received_at.as_ref().map(time_args::rfc3339).unwrap_or_default()),
        ("seq", if event.seq > 0 { event.seq.to_string() } else { String::new() }),
        ("properties", event.properties),
    ];
    let with_value = fields.iter().filter(|(_, value)| !value.is_empty());
    with_value.map(|(name, value)| format!("{}  {}\n", paint.dim(&format!("{name:<12}")), printable(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored() -> proto::StoredEvent {
        let event = proto::Event {
            event_id: "e-1".to_owned(),
            r#type: "click".to_owned(),
            campaign_id: "c".to_owned(),
            occurred_at: Some(time_args::to_proto(Timestamp::from_millis(1_500))),
            properties: r#"{"a":1.50}"#.to_owned(),
            ..Default::default()
        };
        let received_at = Some(prost_types::Timestamp { seconds: 2, nanos: 1_000 });
        proto::StoredEvent { event: Some(event), received_at, schema_version: 0 }
    }

    #[test]
    fn listed_events_can_be_sent_again() {
        let line = render_ndjson(&[stored()]);
        let expected = concat!(
            r#"{"event_id":"e-1","type":"click","campaign_id":"c","occurred_at":"1970-01-01T00:00:01.5Z","#,
            r#""metadata":{"a":1.50},"received_at":"1970-01-01T00:00:02.000001Z"}"#,
            "\n"
        );
        assert_eq!(line, expected);
        assert_eq!(ndjson::parse(line.as_bytes()).ok(), stored().event);
    }

    #[test]
    fn headings_come_once() {
        let page = proto::ListEventsResponse { events: vec![stored()], ..Default::default() };
        assert!(render(&page, 0).starts_with("occurred at (UTC)"));
        assert!(render(&page, 500).starts_with("1970-01-01 00:00:01.500"));
        assert!(render_one(&stored(), Style::plain()).contains("properties    {\"a\":1.50}\n"));
    }
}
