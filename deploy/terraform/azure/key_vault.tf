resource "azurerm_key_vault" "this" {
  #checkov:skip=CKV_AZURE_189:Public only for deployer_ip_ranges, and not at all when there are none.
  name                          = local.unique_name
  resource_group_name           = azurerm_resource_group.this.name
  location                      = azurerm_resource_group.this.location
  tenant_id                     = data.azurerm_client_config.current.tenant_id
  sku_name                      = "standard"
  rbac_authorization_enabled    = true
  purge_protection_enabled      = true
  soft_delete_retention_days    = 90
  public_network_access_enabled = length(var.deployer_ip_ranges) > 0
  tags                          = local.tags

  network_acls {
    bypass         = "None"
    default_action = "Deny"
    ip_rules       = var.deployer_ip_ranges
  }
}

# Made anew in every run and written only when secrets_version rises: neither the
# plan nor the state contains them.
ephemeral "random_password" "generated" {
  for_each = local.secrets

  length  = 48
  special = false
}

resource "azurerm_key_vault_secret" "generated" {
  #checkov:skip=CKV_AZURE_41:Replaced by secrets_version. A date would end the service's access, not the secret's use.
  for_each = local.secrets

  name             = each.key
  key_vault_id     = azurerm_key_vault.this.id
  value_wo         = ephemeral.random_password.generated[each.key].result
  value_wo_version = var.secrets_version
  content_type     = "text/plain"
  tags             = local.tags

  depends_on = [azurerm_role_assignment.deployer_secrets, azurerm_private_endpoint.this]
}

resource "azurerm_key_vault_secret" "ticketing_database_url" {
  #checkov:skip=CKV_AZURE_41:Replaced by secrets_version. A date would end the service's access, not the secret's use.
  name             = "ticketing-database-url"
  key_vault_id     = azurerm_key_vault.this.id
  value_wo         = "postgres://${azurerm_postgresql_flexible_server.this.administrator_login}:${ephemeral.random_password.generated["postgresql-password"].result}@${azurerm_postgresql_flexible_server.this.fqdn}:5432/${azurerm_postgresql_flexible_server_database.ticketing.name}?sslmode=verify-full"
  value_wo_version = var.secrets_version
  content_type     = "text/plain"
  tags             = local.tags

  depends_on = [azurerm_role_assignment.deployer_secrets, azurerm_private_endpoint.this]
}
