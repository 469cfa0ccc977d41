# One ClickHouse server on a virtual machine with a disk of its own. The passwords
# come from the Key Vault when it starts and whenever they change.

resource "azurerm_network_interface" "clickhouse" {
  name                           = "nic-${local.name}-clickhouse"
  resource_group_name            = azurerm_resource_group.this.name
  location                       = azurerm_resource_group.this.location
  accelerated_networking_enabled = true
  tags                           = local.tags

  ip_configuration {
    name                          = "internal"
    subnet_id                     = azurerm_subnet.this["clickhouse"].id
    private_ip_address_allocation = "Static"
    private_ip_address            = local.clickhouse_address
  }
}

resource "azurerm_linux_virtual_machine" "clickhouse" {
  #checkov:skip=CKV_AZURE_50:The monitoring agent is an extension.
  name                            = "vm-${local.name}-clickhouse"
  computer_name                   = "clickhouse"
  resource_group_name             = azurerm_resource_group.this.name
  location                        = azurerm_resource_group.this.location
  zone                            = var.zones[0]
  size                            = var.clickhouse.vm_size
  disk_controller_type            = "SCSI"
  network_interface_ids           = [azurerm_network_interface.clickhouse.id]
  admin_username                  = "operator"
  disable_password_authentication = true
  encryption_at_host_enabled      = true
  secure_boot_enabled             = true
  vtpm_enabled                    = true
  # The agent that sends the system's log.
  allow_extension_operations = true
  patch_mode                 = "AutomaticByPlatform"
  patch_assessment_mode      = "AutomaticByPlatform"
  reboot_setting             = "Never"
  tags                       = local.tags

  custom_data = base64encode(templatefile("${path.module}/clickhouse/cloud-init.yaml", {
    backup_account_url = azurerm_storage_account.backup.primary_blob_endpoint
    backup_container   = azurerm_storage_container.backup.name
    client_id          = azurerm_user_assigned_identity.this["clickhouse"].client_id
    vault_uri          = azurerm_key_vault.this.vault_uri
    package_repository = var.clickhouse_packages.repository
    package_key        = var.clickhouse_packages.key
    version            = var.clickhouse.version
    prepare_disk       = base64encode(file("${path.module}/clickhouse/prepare-disk"))
    refresh_users      = base64encode(file("${path.module}/clickhouse/refresh-users"))
  }))

  admin_ssh_key {
    username   = "operator"
    public_key = var.clickhouse.admin_public_key
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [azurerm_user_assigned_identity.this["clickhouse"].id]
  }

  os_disk {
    caching              = "ReadWrite"
    storage_account_type = "Premium_LRS"
    disk_size_gb         = 64
  }

  source_image_reference {
    publisher = "Canonical"
    offer     = "ubuntu-24_04-lts"
    sku       = "server"
    version   = "latest"
  }

  lifecycle {
    # A newer image or start script is for the next machine: the disk with the data moves to it.
    ignore_changes = [custom_data, source_image_reference]
  }

  depends_on = [
    azurerm_role_assignment.clickhouse,
    azurerm_subnet_nat_gateway_association.this,
    azurerm_subnet_network_security_group_association.this,
  ]
}

resource "azurerm_managed_disk" "clickhouse" {
  #checkov:skip=CKV_AZURE_93:Encrypted with the platform's keys: see README.md.
  name                          = "disk-${local.name}-clickhouse"
  resource_group_name           = azurerm_resource_group.this.name
  location                      = azurerm_resource_group.this.location
  zone                          = var.zones[0]
  storage_account_type          = "PremiumV2_LRS"
  create_option                 = "Empty"
  disk_size_gb                  = var.clickhouse.disk_gib
  disk_iops_read_write          = var.clickhouse.disk_iops
  disk_mbps_read_write          = var.clickhouse.disk_mbps
  network_access_policy         = "DenyAll"
  public_network_access_enabled = false
  tags                          = local.tags
}

resource "azurerm_virtual_machine_data_disk_attachment" "clickhouse" {
  managed_disk_id    = azurerm_managed_disk.clickhouse.id
  virtual_machine_id = azurerm_linux_virtual_machine.clickhouse.id
  lun                = 0
  caching            = "None"
}

# Backups: BACKUP … TO AzureBlobStorage, see docs/operations.md.
resource "azurerm_storage_account" "backup" {
  #checkov:skip=CKV2_AZURE_1:Encrypted with the platform's keys: see README.md.
  #checkov:skip=CKV_AZURE_33:It has no queues.
  #checkov:skip=CKV_AZURE_36:No service of Azure needs to reach it but by its private endpoint.
  name                              = local.unique_name
  resource_group_name               = azurerm_resource_group.this.name
  location                          = azurerm_resource_group.this.location
  account_tier                      = "Standard"
  account_replication_type          = var.environment == "prod" ? "GZRS" : "ZRS"
  min_tls_version                   = "TLS1_2"
  https_traffic_only_enabled        = true
  public_network_access_enabled     = false
  allow_nested_items_to_be_public   = false
  shared_access_key_enabled         = false
  default_to_oauth_authentication   = true
  local_user_enabled                = false
  cross_tenant_replication_enabled  = false
  infrastructure_encryption_enabled = true
  tags                              = local.tags

  network_rules {
    default_action = "Deny"
    bypass         = ["None"]
  }

  blob_properties {
    versioning_enabled = true

    delete_retention_policy {
      days = 14
    }
    container_delete_retention_policy {
      days = 14
    }
  }
}

resource "azurerm_storage_container" "backup" {
  #checkov:skip=CKV2_AZURE_21:Reads are logged by azurerm_monitor_diagnostic_setting.logs.
  name                  = "clickhouse"
  storage_account_id    = azurerm_storage_account.backup.id
  container_access_type = "private"
}

resource "azurerm_storage_management_policy" "backup" {
  storage_account_id = azurerm_storage_account.backup.id

  rule {
    name    = "delete-old-backups"
    enabled = true
    filters {
      blob_types   = ["blockBlob"]
      prefix_match = ["${azurerm_storage_container.backup.name}/"]
    }
    actions {
      base_blob {
        delete_after_days_since_modification_greater_than = var.clickhouse_backup_days
      }
      version {
        delete_after_days_since_creation = var.clickhouse_backup_days
      }
    }
  }
}
