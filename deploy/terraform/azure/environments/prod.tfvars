environment            = "prod"
subscription_id        = "00000000-0000-0000-0000-000000000003"
location               = "westeurope"
address_space          = "10.42.0.0/16"
admin_group_object_ids = ["00000000-0000-0000-0000-0000000000a1"]
caller_ip_ranges       = ["10.60.0.0/16"]
alert_email            = "operators@example.com"
log_retention_days     = 90
log_daily_quota_gb     = 20

kubernetes = {
  version         = "1.34"
  private         = true
  sku_tier        = "Standard"
  system_vm_size  = "Standard_D4ads_v5"
  system_nodes    = 3
  service_vm_size = "Standard_D8ads_v5"
  service_nodes   = 3
}

service = {
  namespace     = "tallyhouse"
  release       = "tallyhouse"
  log_size_gib  = 256
  log_bytes_max = 137438953472
  cpu           = "4"
  memory        = "8Gi"
}

authentication = {
  jwks_url = "https://login.example.com/keys"
  issuer   = "https://login.example.com/"
  audience = "tallyhouse"
}

clickhouse = {
  vm_size          = "Standard_E16ads_v5"
  version          = "26.3.*"
  disk_gib         = 2048
  disk_iops        = 16000
  disk_mbps        = 600
  admin_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGVleGFtcGxlZXhhbXBsZWV4YW1wbGVleGFt operators@example.com"
}

clickhouse_backup_days = 90

postgresql = {
  sku_name          = "GP_Standard_D4ads_v5"
  storage_mb        = 131072
  backup_days       = 35
  geo_backup        = true
  high_availability = true
}

front_door = {
  origin_ready            = false
  firewall_mode           = "Prevention"
  requests_per_minute_max = 60000
  host_name               = "tally.example.com"
}
