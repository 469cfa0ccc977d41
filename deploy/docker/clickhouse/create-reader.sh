#!/usr/bin/env bash
# Creates the user that answers are read as: docs/security.md, "Organizations in
# ClickHouse". ClickHouse's image runs this once, when its volume is empty.
set -euo pipefail

# The password becomes a part of a statement.
if [[ ! $CLICKHOUSE_READER_PASSWORD =~ ^[0-9A-Za-z]{32,}$ ]]; then
  echo "CLICKHOUSE_READER_PASSWORD must have at least 32 letters and digits, and nothing else" >&2
  exit 1
fi
tables=(events campaign_minutes type_hours user_days user_minutes organizations users memberships custom_metrics event_types)
{
  echo "CREATE USER IF NOT EXISTS tallyhouse_reader IDENTIFIED BY '$CLICKHOUSE_READER_PASSWORD' SETTINGS readonly = 2;"
  for table in "${tables[@]}"; do
    echo "GRANT SELECT ON tallyhouse.$table TO tallyhouse_reader;"
    echo "CREATE ROW POLICY IF NOT EXISTS one_organization ON tallyhouse.$table" \
      "USING org_id = getSetting('log_comment') TO tallyhouse_reader;"
  done
} | clickhouse-client --user "$CLICKHOUSE_USER" --password "$CLICKHOUSE_PASSWORD" --multiquery
