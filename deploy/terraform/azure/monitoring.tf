# Logs of everything in one workspace. Metrics and alerts of the service itself are
# Prometheus's: the chart's ServiceMonitor and PrometheusRule.

resource "azurerm_log_analytics_workspace" "this" {
  name                         = "log-${local.name}"
  resource_group_name          = azurerm_resource_group.this.name
  location                     = azurerm_resource_group.this.location
  sku                          = "PerGB2018"
  retention_in_days            = var.log_retention_days
  daily_quota_gb               = var.log_daily_quota_gb
  local_authentication_enabled = false
  tags                         = local.tags
}

resource "azurerm_monitor_diagnostic_setting" "logs" {
  for_each = {
    front_door = azurerm_cdn_frontdoor_profile.this.id
    key_vault  = azurerm_key_vault.this.id
    postgresql = azurerm_postgresql_flexible_server.this.id
    registry   = azurerm_container_registry.this.id
    storage    = "${azurerm_storage_account.backup.id}/blobServices/default"
  }

  name                       = "to-${azurerm_log_analytics_workspace.this.name}"
  target_resource_id         = each.value
  log_analytics_workspace_id = azurerm_log_analytics_workspace.this.id

  enabled_log {
    category_group = "allLogs"
  }
}

# Who did what to the cluster, without the many lines of every read.
resource "azurerm_monitor_diagnostic_setting" "kubernetes" {
  name                           = "to-${azurerm_log_analytics_workspace.this.name}"
  target_resource_id             = azurerm_kubernetes_cluster.this.id
  log_analytics_workspace_id     = azurerm_log_analytics_workspace.this.id
  log_analytics_destination_type = "Dedicated"

  dynamic "enabled_log" {
    for_each = ["guard", "kube-audit-admin", "kube-controller-manager", "cloud-controller-manager"]
    content {
      category = enabled_log.value
    }
  }
}

# The system's log of the ClickHouse server, with ClickHouse's warnings.
resource "azurerm_monitor_data_collection_rule" "clickhouse" {
  name                = "dcr-${local.name}-clickhouse"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  kind                = "Linux"
  tags                = local.tags

  data_sources {
    syslog {
      name           = "system"
      facility_names = ["daemon", "kern", "auth"]
      log_levels     = ["Warning", "Error", "Critical", "Alert", "Emergency"]
      streams        = ["Microsoft-Syslog"]
    }
  }

  destinations {
    log_analytics {
      name                  = "workspace"
      workspace_resource_id = azurerm_log_analytics_workspace.this.id
    }
  }

  data_flow {
    streams      = ["Microsoft-Syslog"]
    destinations = ["workspace"]
  }
}

resource "azurerm_monitor_data_collection_rule_association" "clickhouse" {
  name                    = "clickhouse"
  target_resource_id      = azurerm_linux_virtual_machine.clickhouse.id
  data_collection_rule_id = azurerm_monitor_data_collection_rule.clickhouse.id
}

resource "azurerm_virtual_machine_extension" "monitor_agent" {
  name                       = "AzureMonitorLinuxAgent"
  virtual_machine_id         = azurerm_linux_virtual_machine.clickhouse.id
  publisher                  = "Microsoft.Azure.Monitor"
  type                       = "AzureMonitorLinuxAgent"
  type_handler_version       = "1.33"
  automatic_upgrade_enabled  = true
  auto_upgrade_minor_version = true
  tags                       = local.tags

  settings = jsonencode({
    authentication = {
      managedIdentity = {
        "identifier-name"  = "mi_res_id"
        "identifier-value" = azurerm_user_assigned_identity.this["clickhouse"].id
      }
    }
  })
}

resource "azurerm_monitor_action_group" "operators" {
  name                = "ag-${local.name}"
  resource_group_name = azurerm_resource_group.this.name
  short_name          = "tallyhouse"
  tags                = local.tags

  email_receiver {
    name                    = "operators"
    email_address           = var.alert_email
    use_common_alert_schema = true
  }
}

resource "azurerm_monitor_metric_alert" "this" {
  for_each = {
    "clickhouse-away" = {
      scope     = azurerm_linux_virtual_machine.clickhouse.id
      namespace = "Microsoft.Compute/virtualMachines"
      metric    = "VmAvailabilityMetric"
      operator  = "LessThan"
      threshold = 1
      severity  = 1
      text      = "The ClickHouse server does not run. Events are taken until the service's log is full."
    }
    "postgresql-storage" = {
      scope     = azurerm_postgresql_flexible_server.this.id
      namespace = "Microsoft.DBforPostgreSQL/flexibleServers"
      metric    = "storage_percent"
      operator  = "GreaterThan"
      threshold = 85
      severity  = 2
      text      = "PostgreSQL's storage is nearly full."
    }
  }

  name                = "${local.name}-${each.key}"
  resource_group_name = azurerm_resource_group.this.name
  scopes              = [each.value.scope]
  description         = each.value.text
  severity            = each.value.severity
  frequency           = "PT1M"
  window_size         = "PT5M"
  tags                = local.tags

  criteria {
    metric_namespace = each.value.namespace
    metric_name      = each.value.metric
    aggregation      = "Average"
    operator         = each.value.operator
    threshold        = each.value.threshold
  }

  action {
    action_group_id = azurerm_monitor_action_group.operators.id
  }
}
