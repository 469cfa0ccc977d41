# What differs between environments. environments/NAME.tfvars gives the values.

variable "subscription_id" {
  description = "The subscription that everything is created in. Each environment has its own."
  type        = string
}

variable "environment" {
  description = "dev, staging or prod."
  type        = string

  validation {
    condition     = contains(["dev", "staging", "prod"], var.environment)
    error_message = "environment must be dev, staging or prod."
  }
}

variable "location" {
  description = "The Azure region. It must have three availability zones and Premium SSD v2 disks."
  type        = string
}

variable "address_space" {
  description = "The IPv4 range of the virtual network, of /16. It must not overlap with networks that it will be peered with."
  type        = string

  validation {
    condition     = can(cidrhost(var.address_space, 0)) && endswith(var.address_space, "/16")
    error_message = "address_space must be an IPv4 range of /16, such as 10.40.0.0/16."
  }
}

variable "zones" {
  description = "Availability zones, first the one of the ClickHouse server and of the PostgreSQL primary."
  type        = list(string)
  default     = ["1", "2", "3"]
}

variable "admin_group_object_ids" {
  description = "Object ids of the Entra groups whose members administer the cluster."
  type        = list(string)

  validation {
    condition     = length(var.admin_group_object_ids) > 0
    error_message = "admin_group_object_ids must name at least one group: the cluster has no local accounts."
  }
}

variable "deployer_ip_ranges" {
  description = "Public IPv4 ranges that terraform runs from, if not from inside the network. They may reach the data plane of the Key Vault, and the API server where it is public. Empty: the Key Vault has no public endpoint."
  type        = list(string)
  default     = []
}

variable "caller_ip_ranges" {
  description = "IPv4 ranges of peered networks whose services call by gRPC. Front Door needs no range here."
  type        = list(string)
  default     = []
}

variable "alert_email" {
  description = "Who is told when the ClickHouse server or PostgreSQL is in trouble."
  type        = string
}

variable "kubernetes" {
  description = "The cluster: its version (minor), whether its API server has a private address only, its price tier, and the sizes of its two pools."
  type = object({
    version         = string
    private         = bool
    sku_tier        = string
    system_vm_size  = string
    system_nodes    = number
    service_vm_size = string
    service_nodes   = number
  })

  validation {
    condition     = contains(["Standard", "Premium"], var.kubernetes.sku_tier)
    error_message = "kubernetes.sku_tier must be Standard or Premium: Free has no availability that is promised."
  }

  validation {
    condition     = var.kubernetes.private || length(var.deployer_ip_ranges) > 0
    error_message = "deployer_ip_ranges must name who may reach the API server, unless kubernetes.private is true."
  }
}

variable "service" {
  description = "The service: namespace and release of the chart, the volume of its log, and what it may use. log_bytes_max must fit into the volume."
  type = object({
    namespace     = string
    release       = string
    log_size_gib  = number
    log_bytes_max = number
    cpu           = string
    memory        = string
  })

  validation {
    condition     = var.service.log_bytes_max < var.service.log_size_gib * 1024 * 1024 * 1024 * 0.9
    error_message = "service.log_bytes_max must be less than 90 % of the volume."
  }
}

variable "authentication" {
  description = "The issuer of tokens: the https URL of its set of keys, its name (iss) and the audience (aud). An empty jwks_url: tokens are signed with a secret of the Key Vault."
  type = object({
    jwks_url = string
    issuer   = string
    audience = string
  })
  default = { jwks_url = "", issuer = "", audience = "" }
}

variable "clickhouse" {
  description = "The ClickHouse server: size (with a SCSI disk controller and encryption at host), version of the package, data disk in GiB with its speed, and the SSH key that Azure asks for (port 22 is closed)."
  type = object({
    vm_size          = string
    version          = string
    disk_gib         = number
    disk_iops        = number
    disk_mbps        = number
    admin_public_key = string
  })
}

variable "clickhouse_packages" {
  description = "The Debian repository that ClickHouse is installed from, and the key that it is signed with: their URLs. Name a mirror if the network must not reach the internet."
  type = object({
    repository = string
    key        = string
  })
  default = {
    repository = "https://packages.clickhouse.com/deb"
    key        = "https://packages.clickhouse.com/rpm/lts/repodata/repomd.xml.key"
  }
}

variable "clickhouse_backup_days" {
  description = "How long backups of ClickHouse are kept in the storage account, in days."
  type        = number
  default     = 30
}

variable "postgresql" {
  description = "The ticketing catalogue's server: size, storage in MiB, days of backups, and whether a standby in another zone takes over."
  type = object({
    sku_name          = string
    storage_mb        = number
    backup_days       = number
    geo_backup        = bool
    high_availability = bool
  })
}

variable "front_door" {
  description = "The public entry. origin_ready: whether the chart is installed, so that its private link service exists. firewall_mode: Detection or Prevention. requests_per_minute_max: from one address. host_name: a name of your own, or empty."
  type = object({
    origin_ready            = bool
    firewall_mode           = string
    requests_per_minute_max = number
    host_name               = string
  })

  validation {
    condition     = contains(["Detection", "Prevention"], var.front_door.firewall_mode)
    error_message = "front_door.firewall_mode must be Detection or Prevention."
  }
}

variable "log_retention_days" {
  description = "How long Log Analytics keeps logs, in days, 30 to 730."
  type        = number
  default     = 30
}

variable "log_daily_quota_gb" {
  description = "Most logs that are taken in a day, in GB: a bound on their cost. -1: none."
  type        = number
  default     = 5
}

variable "secrets_version" {
  description = "Raise it to replace every generated secret: passwords and keys get new values with the next apply. README.md says what else to do."
  type        = number
  default     = 1
}
