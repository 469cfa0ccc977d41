//! Filters and pages of the list of shows.

use super::fields::FieldFault;
use super::folding::FoldedText;
use super::show::Show;
use super::status::StatusSet;
use super::timestamp::{MILLIS_PER_DAY, Timestamp};

/// Most locations in one filter.
const LOCATIONS_MAX: usize = 100;
/// Shows on a page when nobody says how many, and at most.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u64 = 100;

const DAY_EXPECTED: &str = "must be a day, such as 2030-05-17";
const ONLY_ONCE: &str = "must be given only once";

/// The reader of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Administrators see all shows, and can filter by status.
    Admin,
    /// The public sees public shows.
    Public,
}

/// A time range that shows overlap: from its first millisecond to before its
/// last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    /// Its start; none: unlimited.
    pub from: Option<Timestamp>,
    /// Its end (exclusive); none: unlimited.
    pub before: Option<Timestamp>,
}

/// One page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// Which one, from 1.
    pub number: u64,
    /// Shows on a page.
    pub limit: u32,
}

impl Page {
    /// Validates the parameters `page` and `limit`.
    ///
    /// # Errors
    /// Every invalid parameter.
    pub fn parse(params: &QueryParams) -> Result<Self, Vec<FieldFault>> {
        let mut reader = Reader { params, faults: Vec::new() };
        let page = reader.page();
        if reader.faults.is_empty() { Ok(page) } else { Err(reader.faults) }
    }

    /// Shows before it. What is more than a database can count is beyond every
    /// list.
    #[must_use]
    pub fn offset(self) -> i64 {
        let offset = self.number.saturating_sub(1).saturating_mul(self.limit.into());
        i64::try_from(offset).unwrap_or(i64::MAX)
    }

    /// Pages that so many shows have.
    #[must_use]
    pub fn total_pages(self, total: u64) -> u64 {
        total.div_ceil(self.limit.into())
    }
}

/// A query for shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListQuery {
    /// The time range.
    pub overlap: Overlap,
    /// Parts of locations, of which a show has at least one; empty: any
    /// location.
    pub locations: Vec<FoldedText>,
    /// The statuses.
    pub statuses: StatusSet,
    /// The page.
    pub page: Page,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The shows of the page, by start and then by id.
    pub shows: Vec<Show>,
    /// How many shows there are on all pages.
    pub total: u64,
}

/// Parameters of a query string, decoded, in order.
pub type QueryParams = [(String, String)];

impl ListQuery {
    /// Validates the parameters. Unknown ones are ignored.
    ///
    /// # Errors
    /// Every invalid parameter.
    pub fn parse(params: &QueryParams, audience: Audience) -> Result<Self, Vec<FieldFault>> {
        let mut reader = Reader { params, faults: Vec::new() };
        let from = reader.day("dateFrom");
        let last_day = reader.day("dateTo");
        if from.zip(last_day).is_some_and(|(from, to)| from > to) {
            reader.fault("dateFrom", "must not be after dateTo");
        }
        let locations = reader.locations();
        let statuses = reader.statuses(audience);
        let page = reader.page();
        if !reader.faults.is_empty() {
            return Err(reader.faults);
        }
        let before = last_day.map(|day| day.plus_millis(MILLIS_PER_DAY));
        Ok(Self { overlap: Overlap { from, before }, locations, statuses, page })
    }

    /// Whether a show is on the list, on whatever page. The stores say the same
    /// in SQL.
    #[must_use]
    pub fn matches(&self, show: &Show) -> bool {
        let Overlap { from, before } = self.overlap;
        let location = FoldedText::new(show.location.as_str());
        from.is_none_or(|from| show.end_at > from)
            && before.is_none_or(|before| show.start_at < before)
            && (self.locations.is_empty() || self.locations.iter().any(|part| location.contains(part)))
            && self.statuses.as_slice().contains(&show.status)
    }
}

struct Reader<'p> {
    params: &'p QueryParams,
    faults: Vec<FieldFault>,
}

impl<'p> Reader<'p> {
    fn fault(&mut self, name: &str, message: impl Into<String>) {
        self.faults.push(FieldFault::new(name, message));
    }

    fn all(&self, name: &'static str) -> impl Iterator<Item = &'p str> + use<'p> {
        self.params.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn one(&mut self, name: &'static str) -> Option<&'p str> {
        let mut values = self.all(name);
        let value = values.next();
        if values.next().is_some() {
            self.fault(name, ONLY_ONCE);
            return None;
        }
        value
    }

    fn day(&mut self, name: &'static str) -> Option<Timestamp> {
        let day = Timestamp::parse_day(self.one(name)?);
        if day.is_none() {
            self.fault(name, DAY_EXPECTED);
        }
        day
    }

    fn number(&mut self, name: &'static str, max: u64) -> Option<u64> {
        let text = self.one(name)?;
        // A sign would do for a number, as far as Rust is concerned.
        let is_digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|number| is_digits && (1..=max).contains(number));
        if number.is_none() {
            self.fault(name, format!("must be a whole number from 1 to {max}"));
        }
        number
    }

    fn page(&mut self) -> Page {
        let number = self.number("page", u64::MAX).unwrap_or(1);
        let limit = self.number("limit", LIMIT_MAX).and_then(|limit| u32::try_from(limit).ok());
        Page { number, limit: limit.unwrap_or(LIMIT_DEFAULT) }
    }

    fn locations(&mut self) -> Vec<FoldedText> {
        const NAME: &str = "locations";
        let parts: Vec<&str> =
            self.all(NAME).flat_map(|value| value.split(',')).map(str::trim).filter(|part| !part.is_empty()).collect();
        if parts.len() > LOCATIONS_MAX {
            self.fault(NAME, format!("must be at most {LOCATIONS_MAX} locations"));
            return Vec::new();
        }
        if parts.iter().any(|part| part.contains('\0')) {
            self.fault(NAME, "must not contain U+0000");
            return Vec::new();
        }
        parts.into_iter().map(FoldedText::new).collect()
    }

    fn statuses(&mut self, audience: Audience) -> StatusSet {
        const NAME: &str = "status";
        let given: Vec<&str> = self.all(NAME).collect();
        if audience == Audience::Public {
            if !given.is_empty() {
                self.fault(NAME, "cannot be chosen here: the public sees shows that are PUBLISHED or CANCELLED");
            }
            return StatusSet::public();
        }
        if given.is_empty() {
            return StatusSet::all();
        }
        StatusSet::parse(&given.join(",")).unwrap_or_else(|| {
            self.fault(NAME, "must be one or more of DRAFT, PUBLISHED and CANCELLED, with commas between them");
            StatusSet::all()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Location, ShowId, Status, Title, Version};

    fn parse(params: &[(&str, &str)], audience: Audience) -> Result<ListQuery, Vec<String>> {
        let params: Vec<(String, String)> = params.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let parsed = ListQuery::parse(&params, audience);
        parsed.map_err(|faults| faults.into_iter().map(|fault| fault.field).collect())
    }

    #[test]
    fn every_parameter_at_fault_is_named() {
        let check = |params: &[(&str, &str)], expected: &[&str]| {
            let faults = parse(params, Audience::Admin).err().unwrap_or_default();
            assert_eq!(faults, expected, "{params:?}");
        };
        check(&[], &[]);
        check(&[("other", "1")], &[]);
        check(&[("dateFrom", "2030-02-29")], &["dateFrom"]);
        check(&[("dateFrom", ""), ("dateTo", "2030-01-01T00:00:00Z")], &["dateFrom", "dateTo"]);
        check(&[("dateFrom", "2030-01-02"), ("dateTo", "2030-01-01")], &["dateFrom"]);
        check(&[("dateFrom", "2030-01-01"), ("dateTo", "2030-01-01")], &[]);
        check(&[("dateFrom", "0000-01-01"), ("dateTo", "9999-12-31")], &[]);
        for number in ["", "0", "-1", "+1", " 1", "1.0", "1e1", "x", "18446744073709551616", "٣"] {
            check(&[("page", number), ("limit", number)], &["page", "limit"]);
        }
        check(&[("page", "18446744073709551615"), ("limit", "100")], &[]);
        check(&[("limit", "101")], &["limit"]);
        check(&[("page", "1"), ("page", "1")], &["page"]);
        check(&[("status", "")], &["status"]);
        check(&[("status", "DRAFT,OTHER")], &["status"]);
        check(&[("status", "DRAFT"), ("status", "PUBLISHED")], &[]);
        check(&[("locations", &"a,".repeat(101))], &["locations"]);
        check(&[("locations", "a\0")], &["locations"]);
        assert_eq!(parse(&[("status", "PUBLISHED")], Audience::Public).unwrap_err(), ["status"]);
    }

    #[test]
    fn locations_are_separated_by_commas_and_empty_ones_are_none() {
        let query = parse(&[("locations", " Ber,, STRASSE ,"), ("locations", "x")], Audience::Public).unwrap();
        let locations: Vec<&str> = query.locations.iter().map(FoldedText::as_str).collect();
        assert_eq!(locations, ["ber", "strasse", "x"]);
        assert_eq!(parse(&[("locations", ",")], Audience::Public).unwrap().locations, []);
    }

    #[test]
    fn pages_beyond_all_numbers_are_beyond_the_list() {
        let page = |number, limit| Page { number, limit };
        assert_eq!(page(1, 20).offset(), 0);
        assert_eq!(page(3, 20).offset(), 40);
        assert_eq!(page(u64::MAX, 100).offset(), i64::MAX);
        assert_eq!([0, 1, 20, 21].map(|total| page(1, 20).total_pages(total)), [0, 1, 1, 2]);
    }

    #[test]
    fn days_include_what_overlaps_them() {
        let check = |start: &str, end: &str, from: &str, to: &str, expected: bool| {
            let mut params = Vec::new();
            params.extend((!from.is_empty()).then_some(("dateFrom", from)));
            params.extend((!to.is_empty()).then_some(("dateTo", to)));
            let show = Show {
                id: ShowId::random(),
                title: Title::parse("a").unwrap(),
                start_at: Timestamp::parse(start).unwrap(),
                end_at: Timestamp::parse(end).unwrap(),
                location: Location::parse("a").unwrap(),
                status: Status::Draft,
                internal_notes: None,
                created_by: None,
                updated_at: Timestamp::from_millis(0),
                version: Version::FIRST,
            };
            let is_listed = parse(&params, Audience::Admin).unwrap().matches(&show);
            assert_eq!(is_listed, expected, "{start} {end} {from} {to}");
        };
        let (start, end) = ("2028-02-28T23:00:00Z", "2028-03-01T00:00:00Z");
        check(start, end, "2028-02-28", "2028-02-28", true);
        check(start, end, "2028-02-29", "2028-02-29", true);
        // It is over as the first of March begins.
        check(start, end, "2028-03-01", "2028-03-01", false);
        check(start, end, "2028-02-27", "2028-02-27", false);
        check(start, end, "2028-03-01", "", false);
        check(start, end, "2028-02-29", "", true);
        check(start, end, "", "2028-02-27", false);
        check(start, end, "", "2028-02-28", true);
        check(start, end, "2028-01-01", "2028-12-31", true);
        check(start, "2028-03-01T00:00:00.001Z", "2028-03-01", "2028-03-01", true);
        check("2028-03-01T00:00:00Z", "2028-03-01T01:00:00Z", "2028-02-29", "2028-02-29", false);
        check("2028-02-29T23:59:59.999Z", "2028-03-01T01:00:00Z", "2028-02-29", "2028-02-29", true);
        // 00:30 in Berlin is the day before in UTC.
        check("2028-03-02T00:30:00+01:00", "2028-03-02T00:45:00+01:00", "2028-03-01", "2028-03-01", true);
    }
}
