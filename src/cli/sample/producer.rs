//! Generates users, impressions, and the clicks that follow them.

use std::collections::HashMap;

use rand::RngExt as _;
use rand::rngs::Xoshiro256PlusPlus;

use super::curve::Campaign;
use crate::cli::time_args;
use crate::domain::Timestamp;
use crate::transport::proto;

/// How many people there are.
const USERS: u32 = 60_000;
/// How unequal they are: the n-th busiest user has about 1/n^0.9 of the events
/// of the busiest (Zipf's law).
const TAIL: f64 = 0.9;
/// The impressions of a campaign that may still be clicked.
const CLICKABLE: usize = 32;

const SOURCES: [&str; 5] = ["web", "ios", "android", "exchange-eu", "exchange-us"];
const CREATIVES: [&str; 4] = ["video-15s", "banner-300x250", "banner-728x90", "story"];
const PLACEMENTS: [&str; 4] = ["feed", "sidebar", "pre-roll", "search"];

/// Makes events. Remembers who saw what, since clicks follow impressions.
pub(super) struct Producer {
    seen: HashMap<&'static str, Vec<proto::Event>>,
    /// For each user, the last number in their order.
    seqs: Vec<u32>,
}

impl Producer {
    pub(super) fn new() -> Self {
        Self { seen: HashMap::new(), seqs: vec![0; USERS as usize] }
    }

    /// An event of `campaign` at `moment`, or, for a click, a little later,
    /// but not after `latest`.
    pub(super) fn event(
        &mut self,
        random: &mut Xoshiro256PlusPlus,
        campaign: &Campaign,
        moment: Timestamp,
        latest: Timestamp,
    ) -> proto::Event {
        let seen = self.seen.entry(campaign.id).or_default();
        // Clicks per event, of clicks per impression.
        let is_click = random.random::<f64>() < campaign.click_rate / (1.0 + campaign.click_rate);
        let mut event = if is_click && !seen.is_empty() {
            let impression = seen.swap_remove(random.random_range(0..seen.len()));
            proto::Event { r#type: "click".to_owned(), properties: String::new(), ..impression }
        } else {
            impression(random, campaign)
        };
        let moment = if event.r#type == "click" {
            moment.plus_millis(random.random_range(800..20_000)).min(latest)
        } else {
            moment
        };
        event.event_id = event_id(random, moment);
        event.occurred_at = Some(time_args::to_proto(moment));
        event.seq = self.next_seq(&event.user_id);
        if event.r#type == "impression" {
            let seen = self.seen.entry(campaign.id).or_default();
            if seen.len() == CLICKABLE {
                seen.swap_remove(random.random_range(0..CLICKABLE));
            }
            seen.push(event.clone());
        }
        event
    }

    fn next_seq(&mut self, user_id: &str) -> u64 {
        let rank: Option<usize> = user_id.trim_start_matches("user-").parse().ok();
        let Some(seq) = rank.and_then(|rank| self.seqs.get_mut(rank)) else { return 0 };
        *seq += 1;
        u64::from(*seq)
    }
}

fn impression(random: &mut Xoshiro256PlusPlus, campaign: &Campaign) -> proto::Event {
    let creative = CREATIVES[random.random_range(0..CREATIVES.len())];
    let placement = PLACEMENTS[random.random_range(0..PLACEMENTS.len())];
    proto::Event {
        r#type: "impression".to_owned(),
        campaign_id: campaign.id.to_owned(),
        creative_id: format!("{}/{creative}", campaign.id),
        source: SOURCES[random.random_range(0..SOURCES.len())].to_owned(),
        user_id: format!("user-{:05}", user(random.random())),
        properties: format!(r#"{{"placement":"{placement}"}}"#),
        ..proto::Event::default()
    }
}

/// A user's rank, the busiest being 0: the inverse of the continuous form of
/// Zipf's law.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to the number of users")]
fn user(choice: f64) -> u32 {
    let reach = f64::from(USERS).powf(1.0 - TAIL) - 1.0;
    let rank = (1.0 + choice * reach).powf(1.0 / (1.0 - TAIL));
    (rank as u32).clamp(1, USERS) - 1
}

/// A UUIDv7 of the moment.
fn event_id(random: &mut Xoshiro256PlusPlus, moment: Timestamp) -> String {
    let millis = u64::try_from(moment.millis()).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &random.random()).into_uuid().to_string()
}
