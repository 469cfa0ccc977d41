//! The statements that create an organization's analyst on a ClickHouse server.

use sha2::{Digest as _, Sha256};

use super::{AnalystKey, Bound, SETTINGS, TABLES, database, definer, row_filter, user, views};
use crate::config::Config;
use crate::domain::OrgId;
use crate::secret::hex;

/// The statements, ordered so that no step gives too much access: policies before privileges, and
/// views before their readers. They can be repeated.
pub fn statements(config: &Config, org_id: &OrgId, key: &AnalystKey) -> String {
    let service_database = &config.clickhouse_database;
    let (user, definer) = (user(Some(org_id)), definer(org_id));
    let password = hex(&Sha256::digest(key.engine_password(&user).expose()));
    let mut text = format!(
        "-- Users of the organization {org}: `{definer}` sees its rows, `{user}` its views.\n\
         CREATE USER IF NOT EXISTS `{definer}` IDENTIFIED WITH sha256_hash BY '{nobody}' HOST NONE;\n",
        org = org_id.as_str(),
        // Nobody knows a text with this hash, and no host may try.
        nobody = "0".repeat(64),
    );
    for table in TABLES {
        text.push_str(&format!(
            "CREATE ROW POLICY OR REPLACE `{definer}` ON {service_database}.{table} AS RESTRICTIVE \
             USING {filter} TO `{definer}`;\n\
             CREATE ROW POLICY OR REPLACE `{definer}_reads` ON {service_database}.{table} AS PERMISSIVE \
             USING {filter} TO `{definer}`;\n\
             GRANT SELECT ON {service_database}.{table} TO `{definer}`;\n",
            filter = row_filter(org_id),
        ));
    }
    text.push_str(&format!("GRANT SET DEFINER ON `{definer}` TO CURRENT_USER;\n"));
    for view in views(service_database, org_id) {
        text.push_str(&format!("{view};\n"));
    }
    text.push_str(&format!(
        "CREATE USER OR REPLACE `{user}` IDENTIFIED WITH sha256_hash BY '{password}'\n  SETTINGS {settings};\n\
         GRANT SELECT ON `{views}`.* TO `{user}`;\n\
         -- Grant `{user}` nothing else. `tallyhouse analyst {org}` prints how analysts log in to the service.\n",
        settings = settings(config),
        views = database(service_database, org_id),
        org = org_id.as_str(),
    ));
    text
}

/// What holds for the user's queries, and which of it they may change.
fn settings(config: &Config) -> String {
    let fixed = super::settings::fixed(config);
    let constant = fixed.iter().filter(|(name, _)| !SETTINGS.iter().any(|setting| setting.name == *name));
    let constant = constant.map(|(name, value)| format!("{name} = {value} CONST"));
    let chosen = SETTINGS.iter().map(|setting| match setting.bound {
        Bound::Free => format!("{} CHANGEABLE_IN_READONLY", setting.name),
        bound => {
            let max = bound.max(config).unwrap_or(1);
            format!("{} = {max} MIN 1 MAX {max} CHANGEABLE_IN_READONLY", setting.name)
        }
    });
    constant.chain(chosen).collect::<Vec<_>>().join(",\n    ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policies_come_before_the_right_to_read() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config { data_dir: dir.path().to_owned(), ..Config::default() };
        let key = AnalystKey::open(&config).unwrap();
        let text = statements(&config, &OrgId::parse("a.b").unwrap(), &key);
        for table in TABLES {
            let policy = text.find(&format!("ON tallyhouse.{table} AS RESTRICTIVE USING org_id = 'a.b'")).unwrap();
            let grant = text.find(&format!("GRANT SELECT ON tallyhouse.{table} TO `definer_a-2Eb`")).unwrap();
            assert!(policy < grant, "{table}");
        }
        assert!(!text.contains(key.engine_password("analyst_a-2Eb").expose()));
    }
}
