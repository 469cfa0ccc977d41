# One zone's worth of everything. The cluster's API is public, behind Entra.
environment            = "dev"
subscription_id        = "00000000-0000-0000-0000-000000000001"
location               = "westeurope"
address_space          = "10.40.0.0/16"
admin_group_object_ids = ["00000000-0000-0000-0000-0000000000a1"]
deployer_ip_ranges     = ["198.51.100.0/24"]
alert_email            = "operators@example.com"

kubernetes = {
  version         = "1.34"
  private         = false
  sku_tier        = "Standard"
  system_vm_size  = "Standard_D2ads_v5"
  system_nodes    = 1
  service_vm_size = "Standard_D4ads_v5"
  service_nodes   = 1
}

service = {
  namespace     = "tallyhouse"
  release       = "tallyhouse"
  log_size_gib  = 32
  log_bytes_max = 8589934592
  cpu           = "1"
  memory        = "2Gi"
}

clickhouse = {
  vm_size          = "Standard_E4ads_v5"
  version          = "26.3.*"
  disk_gib         = 128
  disk_iops        = 3000
  disk_mbps        = 125
  admin_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGVleGFtcGxlZXhhbXBsZWV4YW1wbGVleGFt operators@example.com"
}

postgresql = {
  sku_name          = "B_Standard_B2s"
  storage_mb        = 32768
  backup_days       = 7
  geo_backup        = false
  high_availability = false
}

front_door = {
  origin_ready            = false
  firewall_mode           = "Detection"
  requests_per_minute_max = 6000
  host_name               = ""
}
