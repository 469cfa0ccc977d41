# The ticketing catalogue's database. It has no public address: it is in a subnet of the network.

resource "azurerm_postgresql_flexible_server" "this" {
  #checkov:skip=CKV2_AZURE_57:It is in a subnet of the network instead.
  name                              = "psql-${local.name}-${random_id.unique.hex}"
  resource_group_name               = azurerm_resource_group.this.name
  location                          = azurerm_resource_group.this.location
  zone                              = var.zones[0]
  version                           = "16"
  sku_name                          = var.postgresql.sku_name
  storage_mb                        = var.postgresql.storage_mb
  auto_grow_enabled                 = true
  backup_retention_days             = var.postgresql.backup_days
  geo_redundant_backup_enabled      = var.postgresql.geo_backup
  delegated_subnet_id               = azurerm_subnet.this["postgresql"].id
  private_dns_zone_id               = azurerm_private_dns_zone.this["postgresql"].id
  public_network_access_enabled     = false
  administrator_login               = "tallyhouse"
  administrator_password_wo         = ephemeral.random_password.generated["postgresql-password"].result
  administrator_password_wo_version = var.secrets_version
  tags                              = local.tags

  # The service has a password only; administrators sign in by Entra.
  authentication {
    active_directory_auth_enabled = true
    password_auth_enabled         = true
    tenant_id                     = data.azurerm_client_config.current.tenant_id
  }

  dynamic "high_availability" {
    for_each = var.postgresql.high_availability ? [var.zones[1]] : []
    content {
      mode                      = "ZoneRedundant"
      standby_availability_zone = high_availability.value
    }
  }

  maintenance_window {
    day_of_week  = 2
    start_hour   = 8
    start_minute = 0
  }

  lifecycle {
    # A failover exchanges them.
    ignore_changes = [zone, high_availability[0].standby_availability_zone]
  }

  depends_on = [azurerm_private_dns_zone_virtual_network_link.this]
}

resource "azurerm_postgresql_flexible_server_database" "ticketing" {
  name      = "tallyhouse"
  server_id = azurerm_postgresql_flexible_server.this.id
  charset   = "UTF8"
  collation = "en_US.utf8"
}

resource "azurerm_postgresql_flexible_server_configuration" "this" {
  for_each = {
    "ssl_min_protocol_version"   = "TLSv1.2"
    "connection_throttle.enable" = "on"
    "log_checkpoints"            = "on"
    "log_connections"            = "on"
    "log_disconnections"         = "on"
    "logfiles.retention_days"    = "7"
  }

  name      = each.key
  server_id = azurerm_postgresql_flexible_server.this.id
  value     = each.value
}
