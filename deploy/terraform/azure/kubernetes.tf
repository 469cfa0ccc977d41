# The cluster that the chart is installed in. The service is a StatefulSet: its
# log is a disk, which container apps do not have.

resource "azurerm_kubernetes_cluster" "this" {
  #checkov:skip=CKV_AZURE_117:Encrypted with the platform's keys, and at the host: see README.md.
  name                      = "aks-${local.name}"
  resource_group_name       = azurerm_resource_group.this.name
  location                  = azurerm_resource_group.this.location
  node_resource_group       = "rg-${local.name}-nodes"
  dns_prefix                = local.name
  kubernetes_version        = var.kubernetes.version
  sku_tier                  = var.kubernetes.sku_tier
  private_cluster_enabled   = var.kubernetes.private
  automatic_upgrade_channel = "patch"
  node_os_upgrade_channel   = "NodeImage"
  local_account_disabled    = true
  azure_policy_enabled      = true
  oidc_issuer_enabled       = true
  workload_identity_enabled = true
  image_cleaner_enabled     = true
  # Administration without a way into the network: az aks command invoke. It is authorized and logged like any call.
  run_command_enabled = true
  tags                = local.tags

  # Nodes are of the two pools below: the service's disk and its processors are planned.
  node_provisioning_profile {
    mode = "Manual"
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this["cluster"].id]
  }

  kubelet_identity {
    user_assigned_identity_id = azurerm_user_assigned_identity.this["nodes"].id
    client_id                 = azurerm_user_assigned_identity.this["nodes"].client_id
    object_id                 = azurerm_user_assigned_identity.this["nodes"].principal_id
  }

  azure_active_directory_role_based_access_control {
    azure_rbac_enabled     = true
    admin_group_object_ids = var.admin_group_object_ids
    tenant_id              = data.azurerm_client_config.current.tenant_id
  }

  default_node_pool {
    name                         = "system"
    vm_size                      = var.kubernetes.system_vm_size
    node_count                   = var.kubernetes.system_nodes
    vnet_subnet_id               = azurerm_subnet.this["nodes"].id
    zones                        = var.zones
    os_disk_type                 = "Ephemeral"
    os_sku                       = "AzureLinux"
    max_pods                     = 60
    host_encryption_enabled      = true
    node_public_ip_enabled       = false
    only_critical_addons_enabled = true
    temporary_name_for_rotation  = "systemtemp"

    upgrade_settings {
      max_surge = "33%"
    }
  }

  # A public API server answers to the deployers only.
  dynamic "api_server_access_profile" {
    for_each = var.kubernetes.private ? [] : [var.deployer_ip_ranges]
    content {
      authorized_ip_ranges = api_server_access_profile.value
    }
  }

  # Pods have addresses of their own, and NetworkPolicy is enforced by Cilium.
  network_profile {
    network_plugin      = "azure"
    network_plugin_mode = "overlay"
    network_data_plane  = "cilium"
    network_policy      = "cilium"
    outbound_type       = "userAssignedNATGateway"
    load_balancer_sku   = "standard"
    pod_cidr            = "192.168.0.0/16"
    service_cidr        = "172.16.0.0/16"
    dns_service_ip      = "172.16.0.10"
  }

  # Mounts the Key Vault's secrets into pods, and follows when they change.
  key_vault_secrets_provider {
    secret_rotation_enabled  = true
    secret_rotation_interval = "2m"
  }

  oms_agent {
    log_analytics_workspace_id      = azurerm_log_analytics_workspace.this.id
    msi_auth_for_monitoring_enabled = true
  }

  storage_profile {
    disk_driver_enabled         = true
    snapshot_controller_enabled = true
    file_driver_enabled         = false
  }

  maintenance_window_auto_upgrade {
    frequency   = "Weekly"
    interval    = 1
    day_of_week = "Tuesday"
    start_time  = "08:00"
    utc_offset  = "+00:00"
    duration    = 4
  }

  maintenance_window_node_os {
    frequency   = "Weekly"
    interval    = 1
    day_of_week = "Wednesday"
    start_time  = "08:00"
    utc_offset  = "+00:00"
    duration    = 4
  }

  depends_on = [
    azurerm_role_assignment.cluster,
    azurerm_subnet_nat_gateway_association.this,
    azurerm_subnet_network_security_group_association.this,
  ]
}

# The service's nodes are in one zone each: a disk does not move between zones,
# and a pod moves with its disk. Nodes in every zone let it start again in its own.
resource "azurerm_kubernetes_cluster_node_pool" "service" {
  name                        = "service"
  kubernetes_cluster_id       = azurerm_kubernetes_cluster.this.id
  mode                        = "User"
  vm_size                     = var.kubernetes.service_vm_size
  node_count                  = var.kubernetes.service_nodes
  vnet_subnet_id              = azurerm_subnet.this["nodes"].id
  zones                       = var.zones
  os_disk_type                = "Ephemeral"
  os_sku                      = "AzureLinux"
  max_pods                    = 60
  host_encryption_enabled     = true
  node_public_ip_enabled      = false
  node_labels                 = { "tallyhouse/pool" = "service" }
  temporary_name_for_rotation = "servicetemp"
  tags                        = local.tags

  upgrade_settings {
    max_surge = "33%"
  }
}
