# As prod in kind, smaller in size.
environment            = "staging"
subscription_id        = "00000000-0000-0000-0000-000000000002"
location               = "westeurope"
address_space          = "10.41.0.0/16"
admin_group_object_ids = ["00000000-0000-0000-0000-0000000000a1"]
alert_email            = "operators@example.com"

kubernetes = {
  version         = "1.34"
  private         = true
  sku_tier        = "Standard"
  system_vm_size  = "Standard_D2ads_v5"
  system_nodes    = 3
  service_vm_size = "Standard_D4ads_v5"
  service_nodes   = 3
}

service = {
  namespace     = "tallyhouse"
  release       = "tallyhouse"
  log_size_gib  = 64
  log_bytes_max = 34359738368
  cpu           = "2"
  memory        = "4Gi"
}

authentication = {
  jwks_url = "https://login.example.com/keys"
  issuer   = "https://login.example.com/"
  audience = "tallyhouse-staging"
}

clickhouse = {
  vm_size          = "Standard_E8ads_v5"
  version          = "26.3.*"
  disk_gib         = 512
  disk_iops        = 5000
  disk_mbps        = 250
  admin_public_key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGV4YW1wbGVleGFtcGxlZXhhbXBsZWV4YW1wbGVleGFt operators@example.com"
}

postgresql = {
  sku_name          = "GP_Standard_D2ads_v5"
  storage_mb        = 65536
  backup_days       = 14
  geo_backup        = false
  high_availability = false
}

front_door = {
  origin_ready            = false
  firewall_mode           = "Prevention"
  requests_per_minute_max = 6000
  host_name               = "staging.tally.example.com"
}
