//! The migrations of both databases, embedded in the binary and applied at start. Files are numbered and
//! never changed after a release.

use std::borrow::Cow;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, SqlSafeStr as _};

/// Number, description and SQL.
type Embedded = (i64, &'static str, &'static str);

const SQLITE: [Embedded; 1] = [(1, "catalogue", include_str!("../migrations/sqlite/0001_catalogue.sql"))];
const POSTGRES: [Embedded; 1] = [(1, "catalogue", include_str!("../migrations/postgres/0001_catalogue.sql"))];

/// Where is noted which have been made. It may be a database that others use.
const TABLE: &str = "catalogue_migrations";

pub(super) fn sqlite() -> Migrator {
    migrator(&SQLITE)
}

pub(super) fn postgres() -> Migrator {
    migrator(&POSTGRES)
}

fn migrator(embedded: &[Embedded]) -> Migrator {
    let migrations = embedded.iter().map(|(version, description, sql)| {
        let sql = AssertSqlSafe((*sql).to_owned()).into_sql_str();
        Migration::new(*version, Cow::Borrowed(*description), MigrationType::Simple, sql, false)
    });
    let mut migrator = Migrator::with_migrations(migrations.collect());
    migrator.dangerous_set_table_name(TABLE);
    // Migrations are additive: an older service works on the tables of a newer one.
    migrator.set_ignore_missing(true);
    migrator
}
