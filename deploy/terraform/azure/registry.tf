# The pipeline that builds the image also scans it, and the chart names it by digest.
resource "azurerm_container_registry" "this" {
  #checkov:skip=CKV_AZURE_164:Docker content trust is retired.
  #checkov:skip=CKV_AZURE_165:There is one region.
  #checkov:skip=CKV_AZURE_166:The image is scanned before it is pushed.
  name                          = local.unique_name
  resource_group_name           = azurerm_resource_group.this.name
  location                      = azurerm_resource_group.this.location
  sku                           = "Premium"
  admin_enabled                 = false
  anonymous_pull_enabled        = false
  public_network_access_enabled = false
  network_rule_bypass_option    = "None"
  data_endpoint_enabled         = true
  zone_redundancy_enabled       = true
  retention_policy_in_days      = 30
  tags                          = local.tags
}
