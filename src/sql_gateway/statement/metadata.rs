//! Metadata tables that clients read: they show the analyst's database and its views.
//!
//! ClickHouse's own tables show more, such as the number of rows of other organizations. Each is therefore
//! replaced by a subquery with the columns that clients request and the names that analysts use.

use super::Refusal;
use super::literal::quoted;
use crate::clickhouse::analysts::SETTINGS;
use crate::sql_gateway::scope::Scope;

/// One table of metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    name: &'static str,
    select: &'static str,
}

/// `system.`…
const SYSTEM: [Metadata; 8] = [
    Metadata {
        name: "columns",
        select: "SELECT {shown} AS database, table, name, type, position, '' AS default_kind, '' AS default_expression, \
                 toUInt64(0) AS data_compressed_bytes, toUInt64(0) AS data_uncompressed_bytes, toUInt64(0) AS marks_bytes, \
                 comment, toUInt8(0) AS is_in_partition_key, toUInt8(0) AS is_in_sorting_key, \
                 toUInt8(0) AS is_in_primary_key, toUInt8(0) AS is_in_sampling_key, '' AS compression_codec, \
                 character_octet_length, numeric_precision, numeric_precision_radix, numeric_scale, datetime_precision \
                 FROM system.columns WHERE columns.database = {database} AND columns.table IN ({views})",
    },
    Metadata {
        name: "data_type_families",
        select: "SELECT name, case_insensitive, alias_to FROM system.data_type_families",
    },
    Metadata {
        name: "databases",
        select: "SELECT {shown} AS name, 'Atomic' AS engine, '' AS data_path, '' AS metadata_path, \
                 toUUID('00000000-0000-0000-0000-000000000000') AS uuid, 'Atomic' AS engine_full, '' AS comment",
    },
    Metadata { name: "formats", select: "SELECT name, is_input, is_output FROM system.formats" },
    Metadata {
        name: "functions",
        select: "SELECT name, is_aggregate, case_insensitive, alias_to FROM system.functions WHERE origin = 'System'",
    },
    Metadata { name: "one", select: "SELECT toUInt8(0) AS dummy" },
    Metadata {
        name: "settings",
        select: "SELECT name, value, changed, description, min, max, toUInt8(0) AS readonly, type, default, alias_for, \
                 is_obsolete FROM system.settings WHERE settings.name IN ({settings})",
    },
    Metadata {
        name: "tables",
        select: "SELECT {shown} AS database, name, uuid, engine, toUInt8(0) AS is_temporary, \
                 emptyArrayString() AS data_paths, '' AS metadata_path, metadata_modification_time, \
                 emptyArrayString() AS dependencies_database, emptyArrayString() AS dependencies_table, \
                 '' AS create_table_query, '' AS engine_full, '' AS as_select, '' AS partition_key, '' AS sorting_key, \
                 '' AS primary_key, '' AS sampling_key, '' AS storage_policy, CAST(NULL, 'Nullable(UInt64)') AS total_rows, \
                 CAST(NULL, 'Nullable(UInt64)') AS total_bytes, comment, toUInt8(0) AS has_own_data \
                 FROM system.tables WHERE tables.database = {database} AND tables.name IN ({views})",
    },
];

/// `information_schema.`…, whose columns have two names each, as in ClickHouse.
const INFORMATION_SCHEMA: [Metadata; 4] = [
    Metadata {
        name: "columns",
        select: "SELECT {shown} AS table_catalog, {shown} AS table_schema, table AS table_name, name AS column_name, \
                 position AS ordinal_position, '' AS column_default, type LIKE 'Nullable(%' AS is_nullable, \
                 type AS data_type, character_octet_length AS character_maximum_length, \
                 columns.character_octet_length AS character_octet_length, \
                 columns.numeric_precision AS numeric_precision, \
                 columns.numeric_precision_radix AS numeric_precision_radix, columns.numeric_scale AS numeric_scale, \
                 columns.datetime_precision AS datetime_precision, comment AS column_comment, type AS column_type, \
                 '' AS extra, table_catalog AS TABLE_CATALOG, table_schema AS TABLE_SCHEMA, table_name AS TABLE_NAME, \
                 column_name AS COLUMN_NAME, ordinal_position AS ORDINAL_POSITION, column_default AS COLUMN_DEFAULT, \
                 is_nullable AS IS_NULLABLE, data_type AS DATA_TYPE, \
                 character_maximum_length AS CHARACTER_MAXIMUM_LENGTH, numeric_precision AS NUMERIC_PRECISION, \
                 numeric_scale AS NUMERIC_SCALE, datetime_precision AS DATETIME_PRECISION, \
                 column_comment AS COLUMN_COMMENT, column_type AS COLUMN_TYPE, extra AS EXTRA \
                 FROM system.columns WHERE columns.database = {database} AND columns.table IN ({views})",
    },
    Metadata {
        name: "schemata",
        select: "SELECT {shown} AS catalog_name, {shown} AS schema_name, 'default' AS schema_owner, \
                 catalog_name AS CATALOG_NAME, schema_name AS SCHEMA_NAME, schema_owner AS SCHEMA_OWNER",
    },
    Metadata {
        name: "tables",
        select: "SELECT {shown} AS table_catalog, {shown} AS table_schema, name AS table_name, 'VIEW' AS table_type, \
                 CAST(NULL, 'Nullable(UInt64)') AS table_rows, CAST(NULL, 'Nullable(UInt64)') AS data_length, \
                 '' AS table_collation, comment AS table_comment, table_catalog AS TABLE_CATALOG, \
                 table_schema AS TABLE_SCHEMA, table_name AS TABLE_NAME, table_type AS TABLE_TYPE, \
                 table_comment AS TABLE_COMMENT \
                 FROM system.tables WHERE tables.database = {database} AND tables.name IN ({views})",
    },
    Metadata {
        name: "views",
        select: "SELECT {shown} AS table_catalog, {shown} AS table_schema, name AS table_name, \
                 '' AS view_definition, 'NONE' AS check_option, 'NO' AS is_updatable, table_catalog AS TABLE_CATALOG, \
                 table_schema AS TABLE_SCHEMA, table_name AS TABLE_NAME, view_definition AS VIEW_DEFINITION \
                 FROM system.tables WHERE tables.database = {database} AND tables.name IN ({views})",
    },
];

impl Metadata {
    /// The table of this name.
    pub(super) fn find(database: &str, name: &str) -> Option<Self> {
        let is_information_schema = database.eq_ignore_ascii_case("information_schema");
        let (tables, name) = match database {
            "system" => (SYSTEM.as_slice(), name.to_owned()),
            _ if is_information_schema => (INFORMATION_SCHEMA.as_slice(), name.to_ascii_lowercase()),
            _ => return None,
        };
        tables.iter().copied().find(|table| table.name == name)
    }

    /// The SELECT that stands in for it.
    pub(super) fn select(self, scope: &Scope) -> String {
        let list = |names: &mut dyn Iterator<Item = &str>| names.map(quoted).collect::<Vec<_>>().join(", ");
        self.select
            .replace("{shown}", &quoted(&scope.shown_database))
            .replace("{database}", &quoted(&scope.database))
            .replace("{views}", &list(&mut scope.views.iter().map(|view| view.name)))
            .replace("{settings}", &list(&mut SETTINGS.iter().map(|setting| setting.name)))
    }
}

/// The names of databases, as SHOW DATABASES lists them.
pub(super) fn databases(scope: &Scope) -> Result<String, Refusal> {
    named("system", "databases", scope)
}

/// The tables of the analyst's database, with a column `name`.
pub(super) fn tables(scope: &Scope) -> Result<String, Refusal> {
    named("system", "tables", scope)
}

fn named(database: &str, name: &str, scope: &Scope) -> Result<String, Refusal> {
    let found = Metadata::find(database, name).ok_or_else(|| Refusal::UnknownTable(name.to_owned()))?;
    Ok(found.select(scope))
}
