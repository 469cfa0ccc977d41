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

# The control plane gives nodes addresses, and makes the internal load balancer and its private link service.
resource "azurerm_role_assignment" "cluster_subnets" {
  for_each = toset(["nodes", "load_balancer"])

  scope                = azurerm_subnet.this[each.key].id
  role_definition_name = "Network Contributor"
  principal_id         = azurerm_user_assigned_identity.this["cluster"].principal_id
  principal_type       = "ServicePrincipal"
}

# It gives nodes their identity.
resource "azurerm_role_assignment" "cluster_kubelet" {
  scope                = azurerm_user_assigned_identity.this["nodes"].id
  role_definition_name = "Managed Identity Operator"
  principal_id         = azurerm_user_assigned_identity.this["cluster"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "nodes_registry" {
  scope                = azurerm_container_registry.this.id
  role_definition_name = "AcrPull"
  principal_id         = azurerm_user_assigned_identity.this["nodes"].principal_id
  principal_type       = "ServicePrincipal"
}

# Secret by secret, not the whole vault.
resource "azurerm_role_assignment" "service_secrets" {
  for_each = local.service_secrets

  scope                = azurerm_key_vault_secret.generated[each.key].resource_versionless_id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.this["service"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "service_database_url" {
  scope                = azurerm_key_vault_secret.ticketing_database_url.resource_versionless_id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.this["service"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "clickhouse_secrets" {
  for_each = local.clickhouse_secrets

  scope                = azurerm_key_vault_secret.generated[each.key].resource_versionless_id
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.this["clickhouse"].principal_id
  principal_type       = "ServicePrincipal"
}

resource "azurerm_role_assignment" "clickhouse_backups" {
  scope                = azurerm_storage_container.backup.id
  role_definition_name = "Storage Blob Data Contributor"
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
