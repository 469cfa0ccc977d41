//! Daily activity curves: how many events each campaign has in each minute of a day.

use crate::domain::{MILLIS_PER_DAY, MILLIS_PER_HOUR, MILLIS_PER_MINUTE, Timestamp};

/// An advertiser's campaign.
pub(super) struct Campaign {
    pub(super) id: &'static str,
    /// Its share of the traffic, relative to the others.
    weight: f64,
    /// Clicks per impression.
    pub(super) click_rate: f64,
    /// The hour of UTC at which it is busiest.
    peak_hour: f64,
    /// How much busier it is then than at its quietest: 0 not at all, 1
    /// nothing happens at the quietest.
    swing: f64,
}

const fn campaign(id: &'static str, weight: f64, click_rate: f64, peak_hour: f64, swing: f64) -> Campaign {
    Campaign { id, weight, click_rate, peak_hour, swing }
}

pub(super) const CAMPAIGNS: [Campaign; 20] = [
    campaign("summer-sneakers", 22.0, 0.021, 19.5, 0.80),
    campaign("city-bikes", 15.0, 0.013, 17.0, 0.70),
    campaign("fresh-box-trial", 12.0, 0.034, 11.0, 0.75),
    campaign("night-owl-games", 11.0, 0.028, 23.5, 0.95),
    campaign("early-bird-coffee", 9.0, 0.018, 6.5, 0.95),
    campaign("bank-student-account", 8.0, 0.006, 14.0, 0.60),
    campaign("streaming-free-month", 7.5, 0.031, 21.0, 0.90),
    campaign("lunch-delivery", 7.0, 0.040, 11.5, 0.98),
    campaign("budget-flights", 6.0, 0.016, 20.0, 0.70),
    campaign("office-chairs", 5.0, 0.009, 10.0, 0.85),
    campaign("language-lessons", 4.5, 0.022, 18.5, 0.65),
    campaign("garden-tools", 4.0, 0.011, 9.0, 0.80),
    campaign("dating-over-forty", 3.5, 0.026, 22.0, 0.90),
    campaign("electric-cars", 3.0, 0.005, 16.0, 0.55),
    campaign("pet-insurance", 2.5, 0.008, 13.0, 0.60),
    campaign("yoga-at-home", 2.0, 0.019, 7.0, 0.85),
    campaign("tax-made-easy", 1.5, 0.014, 15.0, 0.75),
    campaign("used-books", 1.2, 0.024, 20.5, 0.60),
    campaign("mountain-huts", 0.9, 0.017, 12.0, 0.50),
    campaign("rare-vinyl", 0.5, 0.038, 1.0, 0.80),
];

const MINUTES: usize = 24 * 60;

/// The last 24 hours, minute by minute.
pub(super) struct Curve {
    start: Timestamp,
    /// For each minute, what has happened up to its end, as a share of the
    /// day.
    up_to: Vec<f64>,
}

impl Curve {
    /// The 24 hours up to `now`.
    pub(super) fn new(now: Timestamp) -> Self {
        let start = now.plus_millis(-MILLIS_PER_DAY);
        let mut total = 0.0;
        let mut up_to: Vec<f64> = (0..MINUTES)
            .map(|minute| {
                let moment = start.plus_millis(minute as i64 * MILLIS_PER_MINUTE);
                total += CAMPAIGNS.iter().map(|campaign| campaign.busy_at(moment)).sum::<f64>();
                total
            })
            .collect();
        up_to.iter_mut().for_each(|sum| *sum /= total);
        Self { start, up_to }
    }

    /// The moment by which `share` of the day's events have happened, and the
    /// campaign of an event of that moment. Both numbers are from 0 to 1.
    pub(super) fn at(&self, share: f64, choice: f64) -> (Timestamp, &'static Campaign) {
        let minute = self.up_to.partition_point(|sum| *sum < share).min(MINUTES - 1);
        let before = if minute == 0 { 0.0 } else { self.up_to[minute - 1] };
        let within = ((share - before) / (self.up_to[minute] - before)).clamp(0.0, 0.999_99);
        let moment = self.start.plus_millis(minute as i64 * MILLIS_PER_MINUTE + millis(within));
        let busy: Vec<f64> = CAMPAIGNS.iter().map(|campaign| campaign.busy_at(moment)).collect();
        let mut left = choice * busy.iter().sum::<f64>();
        let chosen = CAMPAIGNS.iter().zip(&busy).find(|(_, busy)| {
            left -= **busy;
            left <= 0.0
        });
        (moment, chosen.map_or(&CAMPAIGNS[0], |(campaign, _)| campaign))
    }
}

impl Campaign {
    fn busy_at(&self, moment: Timestamp) -> f64 {
        let hour = moment.millis().rem_euclid(MILLIS_PER_DAY) as f64 / MILLIS_PER_HOUR as f64;
        let angle = (hour - self.peak_hour) / 24.0 * std::f64::consts::TAU;
        // From 1 at the peak to 1 - swing opposite of it.
        self.weight * (1.0 - self.swing * (1.0 - angle.cos()) / 2.0)
    }
}

/// A share of a minute, in milliseconds.
#[expect(clippy::cast_possible_truncation, reason = "at most a minute's milliseconds")]
fn millis(share: f64) -> i64 {
    (share * MILLIS_PER_MINUTE as f64) as i64
}
