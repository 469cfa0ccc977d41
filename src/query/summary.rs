//! Daily metrics: counts from the rollups, through the cache, and values that organizations store, always
//! from the database, so that they can be read as soon as they are stored.

use std::collections::HashMap;
use std::sync::Arc;

use super::Queries;
use super::cache::{CacheKey, Value};
use crate::clickhouse::daily_metrics::TypeDay;
use crate::domain::{
    Answer, CustomValue, DayCount, Error, MILLIS_PER_DAY, Measurement, Metric, MetricSeries, OrgId, SummaryQuery,
    Timestamp, Window, unknown_metric,
};

impl Queries {
    /// Metrics of every day of a window, and of the whole of it.
    ///
    /// # Errors
    /// `Invalid`, naming `metrics`, for a metric without stored values.
    pub async fn summary(&self, org_id: &OrgId, question: &SummaryQuery) -> Result<Answer<Vec<MetricSeries>>, Error> {
        let SummaryQuery { window, metrics } = question;
        let mut freshness = Freshness::default();
        let custom = self.custom(org_id, *window, metrics).await?;
        if !custom.is_empty() {
            freshness.note(&Answer { value: (), watermark: self.cache.watermark(), cached: false });
        }
        let mut facts = DailyCounts { custom, ..DailyCounts::default() };
        if metrics.contains(&Metric::ActiveUsers) {
            let daily = self.daily_active_users(org_id, *window).await?;
            let total = self.active_users(org_id, *window).await?;
            freshness.note(&daily);
            freshness.note(&total);
            (facts.daily_users, facts.users) = (by_day(&daily.value), total.value);
        }
        if metrics.iter().any(|metric| !matches!(metric, Metric::ActiveUsers | Metric::Custom(_))) {
            let counted = self.type_days(org_id, *window, types_of(metrics)).await?;
            freshness.note(&counted);
            facts.types = counted.value;
        }
        let days = days_of(*window);
        let value = metrics.iter().map(|metric| facts.series(metric, &days)).collect();
        Ok(Answer {
            value,
            watermark: freshness.watermark.unwrap_or_else(|| self.cache.watermark()),
            cached: freshness.cached,
        })
    }

    /// Stores values of an organization's own metrics. Later values replace earlier ones of the
    /// same day and name. After it returns, every answer includes them.
    ///
    /// # Errors
    /// If the database cannot be reached. The values may or may not be stored, and can be sent
    /// again.
    pub async fn put_metrics(&self, org_id: &OrgId, values: &[CustomValue]) -> Result<(), Error> {
        let first_version = self.clock.arrivals(values.len() as u64);
        self.limiter.run(org_id, |_| self.figures.put(org_id, values, first_version)).await
    }

    /// The values of the metrics that are the organization's own.
    async fn custom(
        &self,
        org_id: &OrgId,
        window: Window,
        metrics: &[Metric],
    ) -> Result<HashMap<String, HashMap<Timestamp, f64>>, Error> {
        let names: Vec<String> =
            metrics.iter().filter(|metric| matches!(metric, Metric::Custom(_))).map(Metric::name).collect();
        if names.is_empty() {
            return Ok(HashMap::new());
        }
        let values = self.limiter.run(org_id, |ticket| self.figures.values(ticket, org_id, &names, window)).await?;
        let mut found: HashMap<String, HashMap<Timestamp, f64>> = HashMap::new();
        for CustomValue { day, name, value } in values {
            found.entry(name).or_default().insert(day, value);
        }
        // A name may have values outside the window only.
        let missing: Vec<String> = names.into_iter().filter(|name| !found.contains_key(name)).collect();
        if !missing.is_empty() {
            let known = self.limiter.run(org_id, |ticket| self.figures.known_names(ticket, org_id, &missing)).await?;
            let unknown: Vec<_> = missing.iter().filter(|name| !known.contains(name)).collect();
            if !unknown.is_empty() {
                return Err(Error::invalid(unknown.into_iter().map(|name| unknown_metric(name)).collect()));
            }
        }
        Ok(found)
    }

    async fn active_users(&self, org_id: &OrgId, window: Window) -> Result<Answer<u64>, Error> {
        let ask = async {
            Ok(Value::ActiveUsers(
                self.limiter.run(org_id, |ticket| self.figures.active_users(ticket, org_id, window)).await?,
            ))
        };
        let answer = self.cache.answer(org_id, CacheKey::ActiveUsers(window), ask).await?;
        super::expect(answer, |value| if let Value::ActiveUsers(users) = value { Some(users) } else { None })
    }

    async fn type_days(
        &self,
        org_id: &OrgId,
        window: Window,
        types: Vec<String>,
    ) -> Result<Answer<Arc<Vec<TypeDay>>>, Error> {
        let asked = types.clone();
        let ask = async {
            let days =
                self.limiter.run(org_id, |ticket| self.figures.type_days(ticket, org_id, window, &asked)).await?;
            Ok(Value::TypeDays(Arc::new(days)))
        };
        let answer = self.cache.answer(org_id, CacheKey::TypeDays(window, types), ask).await?;
        super::expect(answer, |value| if let Value::TypeDays(days) = value { Some(days) } else { None })
    }
}

/// The freshness of a combined answer.
#[derive(Default)]
struct Freshness {
    watermark: Option<Timestamp>,
    cached: bool,
}

impl Freshness {
    fn note<T>(&mut self, part: &Answer<T>) {
        self.cached = part.cached && (self.cached || self.watermark.is_none());
        self.watermark = Some(self.watermark.map_or(part.watermark, |watermark| watermark.min(part.watermark)));
    }
}

/// The required types, sorted and unique, so that equal queries share a cache entry.
fn types_of(metrics: &[Metric]) -> Vec<String> {
    let named = metrics.iter().filter_map(|metric| match metric {
        Metric::EventsOf(event_type) => Some(event_type.clone()),
        _ => None,
    });
    let mut types: Vec<String> = named.chain([Metric::IMPRESSION, Metric::CLICK].map(str::to_owned)).collect();
    types.sort_unstable();
    types.dedup();
    types
}

fn days_of(window: Window) -> Vec<Timestamp> {
    let days = 0..window.buckets(MILLIS_PER_DAY);
    days.map(|day| window.from().plus_millis(day * MILLIS_PER_DAY)).collect()
}

fn by_day(counts: &[DayCount]) -> HashMap<Timestamp, u64> {
    counts.iter().map(|count| (count.day, count.users)).collect()
}

/// What the database knows.
#[derive(Default)]
struct DailyCounts {
    types: Arc<Vec<TypeDay>>,
    daily_users: HashMap<Timestamp, u64>,
    users: u64,
    custom: HashMap<String, HashMap<Timestamp, f64>>,
}

impl DailyCounts {
    fn series(&self, metric: &Metric, days: &[Timestamp]) -> MetricSeries {
        let (total, daily): (Measurement, Vec<Measurement>) = match metric {
            Metric::ActiveUsers => {
                let users = |day| Measurement::Count(self.daily_users.get(day).copied().unwrap_or_default());
                (Measurement::Count(self.users), days.iter().map(users).collect())
            }
            Metric::Events => self.counts(None, days),
            Metric::Impressions => self.counts(Some(Metric::IMPRESSION), days),
            Metric::Clicks => self.counts(Some(Metric::CLICK), days),
            Metric::EventsOf(event_type) => self.counts(Some(event_type), days),
            Metric::Ctr => self.ratio(days),
            Metric::Custom(name) => {
                let values = self.custom.get(name);
                let value = |day| values.and_then(|values| values.get(day)).copied().unwrap_or_default();
                let total = days.iter().map(value).sum();
                (Measurement::Number(total), days.iter().map(|day| Measurement::Number(value(day))).collect())
            }
        };
        MetricSeries { name: metric.name(), total, daily: days.iter().copied().zip(daily).collect() }
    }

    /// The events of a type, or of every type, by day.
    fn count_by_day(&self, event_type: Option<&str>) -> HashMap<Timestamp, u64> {
        let mut counts = HashMap::new();
        let wanted = |day: &&TypeDay| event_type.is_none_or(|event_type| day.event_type == event_type);
        for TypeDay { day, events, .. } in self.types.iter().filter(wanted) {
            *counts.entry(*day).or_default() += events;
        }
        counts
    }

    fn counts(&self, event_type: Option<&str>, days: &[Timestamp]) -> (Measurement, Vec<Measurement>) {
        let counts = self.count_by_day(event_type);
        let daily = days.iter().map(|day| Measurement::Count(counts.get(day).copied().unwrap_or_default()));
        (Measurement::Count(counts.values().sum()), daily.collect())
    }

    /// Clicks per impression: of each day, and of all days together.
    fn ratio(&self, days: &[Timestamp]) -> (Measurement, Vec<Measurement>) {
        let [clicks, impressions] =
            [Metric::CLICK, Metric::IMPRESSION].map(|event_type| self.count_by_day(Some(event_type)));
        let of = |counts: &HashMap<Timestamp, u64>, day| counts.get(day).copied().unwrap_or_default();
        let daily = days.iter().map(|day| ratio(of(&clicks, day), of(&impressions, day))).collect();
        (ratio(clicks.values().sum(), impressions.values().sum()), daily)
    }
}

#[allow(clippy::cast_precision_loss, reason = "a ratio has no more digits than that")]
fn ratio(part: u64, whole: u64) -> Measurement {
    Measurement::Number(if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: fn(i64) -> Timestamp = |n| Timestamp::from_millis(n * MILLIS_PER_DAY);

    fn facts() -> DailyCounts {
        let type_day = |n, event_type: &str, events| TypeDay { day: DAY(n), event_type: event_type.to_owned(), events };
        let types = vec![
            type_day(1, "", 5),
            type_day(1, "click", 1),
            type_day(1, "impression", 4),
            type_day(3, "click", 2),
            type_day(3, "impression", 2),
        ];
        let values = HashMap::from([(DAY(2), 1.5), (DAY(3), -0.5)]);
        DailyCounts {
            types: Arc::new(types),
            daily_users: HashMap::from([(DAY(1), 3), (DAY(3), 2)]),
            users: 4,
            custom: HashMap::from([("revenue".to_owned(), values)]),
        }
    }

    #[test]
    fn every_day_is_there_and_totals_are_of_the_whole() {
        let days = days_of(Window::new(DAY(1), DAY(4)).expect("a window"));
        let check = |metric: Metric, total: Measurement, daily: [Measurement; 3]| {
            let series = facts().series(&metric, &days);
            let expected = [DAY(1), DAY(2), DAY(3)].into_iter().zip(daily).collect();
            assert_eq!(series, MetricSeries { name: metric.name(), total, daily: expected });
        };
        let counts = |daily: [u64; 3]| daily.map(Measurement::Count);
        let numbers = |daily: [f64; 3]| daily.map(Measurement::Number);
        check(Metric::Events, Measurement::Count(14), counts([10, 0, 4]));
        check(Metric::ActiveUsers, Measurement::Count(4), counts([3, 0, 2]));
        check(Metric::Clicks, Measurement::Count(3), counts([1, 0, 2]));
        check(Metric::Impressions, Measurement::Count(6), counts([4, 0, 2]));
        check(Metric::Ctr, Measurement::Number(0.5), numbers([0.25, 0.0, 1.0]));
        check(Metric::EventsOf("other".to_owned()), Measurement::Count(0), counts([0, 0, 0]));
        check(Metric::Custom("revenue".to_owned()), Measurement::Number(1.0), numbers([0.0, 1.5, -0.5]));
    }

    #[test]
    fn an_answer_is_as_fresh_as_its_oldest_part() {
        let part = |millis, cached| Answer { value: (), watermark: Timestamp::from_millis(millis), cached };
        let check = |parts: &[Answer<()>], watermark: i64, cached: bool| {
            let mut freshness = Freshness::default();
            parts.iter().for_each(|part| freshness.note(part));
            assert_eq!(freshness.watermark, Some(Timestamp::from_millis(watermark)));
            assert_eq!(freshness.cached, cached);
        };
        check(&[part(5, true)], 5, true);
        check(&[part(5, true), part(4, true)], 4, true);
        check(&[part(4, true), part(5, false)], 4, false);
        check(&[part(4, false), part(5, true)], 4, false);
    }
}
