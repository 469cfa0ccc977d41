# One network. Nothing in it has a public address but the NAT gateway, which
# carries traffic out only. Subnets are closed to each other but for what is listed here.

locals {
  subnets = {
    nodes         = cidrsubnet(var.address_space, 4, 0)
    clickhouse    = cidrsubnet(var.address_space, 8, 16)
    postgresql    = cidrsubnet(var.address_space, 8, 17)
    endpoints     = cidrsubnet(var.address_space, 8, 18)
    load_balancer = cidrsubnet(var.address_space, 8, 19)
  }

  # Subnets whose machines start connections to the internet.
  subnets_with_egress = toset(["nodes", "clickhouse"])

  # What may reach each subnet. All else is denied.
  admitted = {
    nodes = [
      { name = "nodes", protocol = "*", sources = [local.subnets.nodes], destination = local.subnets.nodes, ports = ["0-65535"] },
      # The load balancer hands calls to nodes with the callers' addresses, and with its own as their destination.
      { name = "callers", protocol = "Tcp", sources = concat([local.subnets.load_balancer], var.caller_ip_ranges), destination = "${local.load_balancer_address}/32", ports = ["8080"] },
      { name = "probes", protocol = "*", sources = ["AzureLoadBalancer"], destination = "*", ports = ["0-65535"] },
    ]
    clickhouse = [
      { name = "service", protocol = "Tcp", sources = [local.subnets.nodes], destination = "${local.clickhouse_address}/32", ports = ["8123"] },
    ]
    postgresql = [
      # Its own machines, for the standby, and the service.
      { name = "service", protocol = "Tcp", sources = [local.subnets.nodes, local.subnets.postgresql], destination = local.subnets.postgresql, ports = ["5432", "6432"] },
    ]
    endpoints = [
      { name = "machines", protocol = "Tcp", sources = [local.subnets.nodes, local.subnets.clickhouse], destination = local.subnets.endpoints, ports = ["443"] },
    ]
    load_balancer = []
  }

  clickhouse_address    = cidrhost(local.subnets.clickhouse, 10)
  load_balancer_address = cidrhost(local.subnets.load_balancer, 10)

  private_zones = {
    blob       = "privatelink.blob.core.windows.net"
    key_vault  = "privatelink.vaultcore.azure.net"
    postgresql = "${local.name}.private.postgres.database.azure.com"
    registry   = "privatelink.azurecr.io"
  }
}

resource "azurerm_virtual_network" "this" {
  name                = "vnet-${local.name}"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  address_space       = [var.address_space]
  tags                = local.tags

  # Traffic between machines is encrypted where both sides support it: the sizes
  # in environments/ do. The service speaks plain HTTP to ClickHouse inside it.
  encryption {
    enforcement = "AllowUnencrypted"
  }
}

resource "azurerm_subnet" "this" {
  for_each = local.subnets

  name                              = each.key
  resource_group_name               = azurerm_resource_group.this.name
  virtual_network_name              = azurerm_virtual_network.this.name
  address_prefixes                  = [each.value]
  default_outbound_access_enabled   = false
  private_endpoint_network_policies = "Enabled"
  # The private link service takes its addresses here, which network policies would refuse.
  private_link_service_network_policies_enabled = each.key != "load_balancer"

  dynamic "delegation" {
    for_each = each.key == "postgresql" ? ["Microsoft.DBforPostgreSQL/flexibleServers"] : []
    content {
      name = "postgresql"
      service_delegation {
        name    = delegation.value
        actions = ["Microsoft.Network/virtualNetworks/subnets/join/action"]
      }
    }
  }
}

resource "azurerm_network_security_group" "this" {
  for_each = local.subnets

  name                = "nsg-${local.name}-${each.key}"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  tags                = local.tags

  dynamic "security_rule" {
    for_each = local.admitted[each.key]
    content {
      name                       = "admit-${security_rule.value.name}"
      priority                   = 100 + security_rule.key
      direction                  = "Inbound"
      access                     = "Allow"
      protocol                   = security_rule.value.protocol
      source_port_range          = "*"
      source_address_prefix      = length(security_rule.value.sources) == 1 ? security_rule.value.sources[0] : null
      source_address_prefixes    = length(security_rule.value.sources) == 1 ? null : security_rule.value.sources
      destination_port_ranges    = security_rule.value.ports
      destination_address_prefix = security_rule.value.destination
    }
  }

  # Without it, Azure's default rules admit the whole network.
  security_rule {
    name                       = "deny-all-else"
    priority                   = 4096
    direction                  = "Inbound"
    access                     = "Deny"
    protocol                   = "*"
    source_port_range          = "*"
    source_address_prefix      = "*"
    destination_port_range     = "*"
    destination_address_prefix = "*"
  }
}

resource "azurerm_subnet_network_security_group_association" "this" {
  for_each = local.subnets

  subnet_id                 = azurerm_subnet.this[each.key].id
  network_security_group_id = azurerm_network_security_group.this[each.key].id
}

# One known address for all that goes out: keys of the issuer, packages, webhooks.
resource "azurerm_public_ip" "egress" {
  name                = "pip-${local.name}-egress"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  allocation_method   = "Static"
  sku                 = "Standard"
  zones               = [var.zones[0]]
  tags                = local.tags
}

resource "azurerm_nat_gateway" "this" {
  name                = "ng-${local.name}"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  sku_name            = "Standard"
  zones               = [var.zones[0]]
  tags                = local.tags
}

resource "azurerm_nat_gateway_public_ip_association" "this" {
  nat_gateway_id       = azurerm_nat_gateway.this.id
  public_ip_address_id = azurerm_public_ip.egress.id
}

resource "azurerm_subnet_nat_gateway_association" "this" {
  for_each = local.subnets_with_egress

  subnet_id      = azurerm_subnet.this[each.key].id
  nat_gateway_id = azurerm_nat_gateway.this.id
}

resource "azurerm_private_dns_zone" "this" {
  for_each = local.private_zones

  name                = each.value
  resource_group_name = azurerm_resource_group.this.name
  tags                = local.tags
}

resource "azurerm_private_dns_zone_virtual_network_link" "this" {
  for_each = local.private_zones

  name                = each.key
  private_dns_zone_id = azurerm_private_dns_zone.this[each.key].id
  virtual_network_id  = azurerm_virtual_network.this.id
  tags                = local.tags
}

# Key Vault, registry and backups are reached by addresses of the network.
resource "azurerm_private_endpoint" "this" {
  for_each = {
    blob      = { id = azurerm_storage_account.backup.id, subresource = "blob" }
    key_vault = { id = azurerm_key_vault.this.id, subresource = "vault" }
    registry  = { id = azurerm_container_registry.this.id, subresource = "registry" }
  }

  name                = "pe-${local.name}-${replace(each.key, "_", "-")}"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  subnet_id           = azurerm_subnet.this["endpoints"].id
  tags                = local.tags

  private_service_connection {
    name                           = each.key
    private_connection_resource_id = each.value.id
    subresource_names              = [each.value.subresource]
    is_manual_connection           = false
  }

  private_dns_zone_group {
    name                 = each.key
    private_dns_zone_ids = [azurerm_private_dns_zone.this[each.key].id]
  }
}
