data "azurerm_client_config" "current" {}

locals {
  # A workspace beside "default" is a copy for a short time: its name is part of all names.
  suffix = terraform.workspace == "default" ? "" : "-${terraform.workspace}"
  name   = format("tallyhouse-%s%s", var.environment, local.suffix)
  # Names that are unique in all of Azure, without hyphens and at most 24 characters long.
  unique_name = substr("th${var.environment}${random_id.unique.hex}${replace(lower(local.suffix), "/[^a-z0-9]/", "")}", 0, 24)

  tags = {
    application = "tallyhouse"
    environment = var.environment
    managed_by  = "terraform"
  }

  # What is generated, kept in the Key Vault, and read by whom.
  secrets = toset([
    "analyst-secret",
    "auth-hs256-secret",
    "clickhouse-password",
    "clickhouse-reader-password",
    "cursor-secret",
    "postgresql-password",
    "ticketing-admin-tokens",
  ])
  clickhouse_secrets = toset(["clickhouse-password", "clickhouse-reader-password"])
  # Of these, the service reads all but the password that its database URL contains.
  service_secrets = setsubtract(local.secrets, ["postgresql-password"])
}

resource "random_id" "unique" {
  byte_length = 4
}

resource "azurerm_resource_group" "this" {
  name     = "rg-${local.name}"
  location = var.location
  tags     = local.tags
}

# Data is not deleted by a mistake in a plan: remove the lock first.
resource "azurerm_management_lock" "data" {
  count = var.environment == "prod" ? 1 : 0

  name       = "no-deletion"
  scope      = azurerm_resource_group.this.id
  lock_level = "CanNotDelete"
  notes      = "Holds ClickHouse's disk, PostgreSQL, the backups and the keys."
}
