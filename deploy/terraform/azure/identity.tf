# Four identities, each with what it needs and no more. None has a password.

resource "azurerm_user_assigned_identity" "this" {
  for_each = toset([
    "cluster",    # the cluster's control plane
    "nodes",      # the kubelets
    "service",    # the service's pods
    "clickhouse", # the ClickHouse server
  ])

  name                = "id-${local.name}-${each.key}"
  resource_group_name = azurerm_resource_group.this.name
  location            = azurerm_resource_group.this.location
  tags                = local.tags
}

# The service's pods, and no others of the cluster, are the identity "service".
resource "azurerm_federated_identity_credential" "service" {
  name                      = "kubernetes"
  user_assigned_identity_id = azurerm_user_assigned_identity.this["service"].id
  audience                  = ["api://AzureADTokenExchange"]
  issuer                    = azurerm_kubernetes_cluster.this.oidc_issuer_url
  subject                   = "system:serviceaccount:${var.service.namespace}:${var.service.release}"
}

# What each identity may do: on what, and in which role.
locals {
  # The control plane gives nodes, the internal load balancer and its private link service addresses of these subnets, and
  # gives nodes their identity. It makes them in the group of the nodes, where Azure gives it a role itself.
  cluster_grants = {
    nodes_subnet         = { scope = azurerm_subnet.this["nodes"].id, role = "Network Contributor" }
    load_balancer_subnet = { scope = azurerm_subnet.this["load_balancer"].id, role = "Network Contributor" }
    nodes_identity       = { scope = azurerm_user_assigned_identity.this["nodes"].id, role = "Managed Identity Operator" }
  }
  nodes_grants = {
    registry = { scope = azurerm_container_registry.this.id, role = "AcrPull" }
  }
  # Secret by secret, not the whole vault.
  service_grants = merge(
    { for name in local.service_secrets : name => {
      scope = azurerm_key_vault_secret.generated[name].resource_versionless_id
      role  = "Key Vault Secrets User"
    } },
    { ticketing-database-url = {
      scope = azurerm_key_vault_secret.ticketing_database_url.resource_versionless_id
      role  = "Key Vault Secrets User"
    } },
  )
  clickhouse_grants = merge(
    { for name in local.clickhouse_secrets : name => {
      scope = azurerm_key_vault_secret.generated[name].resource_versionless_id
      role  = "Key Vault Secrets User"
    } },
    { backups = { scope = azurerm_storage_container.backup.id, role = "Storage Blob Data Contributor" } },
  )
}

# One resource for each identity: what depends on the grants of one does not wait for those of others.
resource "azurerm_role_assignment" "cluster" {
  for_each = local.cluster_grants

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.this["cluster"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "nodes" {
  for_each = local.nodes_grants

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.this["nodes"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "service" {
  for_each = local.service_grants

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.this["service"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "clickhouse" {
  for_each = local.clickhouse_grants

  scope                = each.value.scope
  role_definition_name = each.value.role
  principal_id         = azurerm_user_assigned_identity.this["clickhouse"].principal_id
  principal_type       = "ServicePrincipal"
}

# Whoever applies this writes the secrets.
resource "azurerm_role_assignment" "deployer_secrets" {
  scope                = azurerm_key_vault.this.id
  role_definition_name = "Key Vault Secrets Officer"
  principal_id         = data.azurerm_client_config.current.object_id
}

resource "azurerm_role_assignment" "administrators" {
  for_each = toset(var.admin_group_object_ids)

  scope                = azurerm_kubernetes_cluster.this.id
  role_definition_name = "Azure Kubernetes Service RBAC Cluster Admin"
  principal_id         = each.value
  principal_type       = "Group"
}
