output "endpoint" {
  description = "Where REST and grpc-web are served to the public."
  value       = "https://${local.public_host}"
}

output "internal_endpoint" {
  description = "Where gRPC is served inside the network, and in networks peered with it."
  value       = "http://${local.load_balancer_address}:8080"
}

output "domain_validation_token" {
  description = "The TXT record _dnsauth.HOST that proves the host name of your own; null without one."
  value       = one(azurerm_cdn_frontdoor_custom_domain.this[*].validation_token)
}

output "registry" {
  description = "Where the image is pushed to."
  value       = azurerm_container_registry.this.login_server
}

output "cluster" {
  description = "Name and resource group of the cluster, for az aks get-credentials or az aks command invoke."
  value       = { name = azurerm_kubernetes_cluster.this.name, resource_group = azurerm_resource_group.this.name }
}

output "private_link_service" {
  description = "Name and resource group of the private link service that the chart's service makes, for az network private-link-service."
  value       = { name = local.private_link_service, resource_group = azurerm_kubernetes_cluster.this.node_resource_group }
}

output "key_vault" {
  description = "Name of the Key Vault."
  value       = azurerm_key_vault.this.name
}

output "egress_address" {
  description = "The one address that connections to the internet come from."
  value       = azurerm_public_ip.egress.ip_address
}

output "helm_values" {
  description = "Values for the chart: terraform output -raw helm_values > values.yaml. They hold no secret."
  value       = yamlencode(local.helm_values)
}

locals {
  # The Secrets that the chart names, with the Key Vault's secrets that they are made from.
  kubernetes_secrets = {
    tallyhouse-clickhouse = { service = "clickhouse-password", reader = "clickhouse-reader-password" }
    tallyhouse-keys       = { auth = "auth-hs256-secret", cursors = "cursor-secret", analysts = "analyst-secret" }
    tallyhouse-ticketing  = { tokens = "ticketing-admin-tokens", url = "ticketing-database-url" }
  }
  has_issuer = var.authentication.jwks_url != ""

  helm_values = {
    fullnameOverride = var.service.release
    image            = { repository = "${azurerm_container_registry.this.login_server}/tallyhouse" }
    clickhouse = {
      url                  = "http://${local.clickhouse_address}:8123"
      passwordSecret       = { name = "tallyhouse-clickhouse", key = "service" }
      readerUser           = "tallyhouse_reader"
      readerPasswordSecret = { name = "tallyhouse-clickhouse", key = "reader" }
    }
    authentication = {
      hs256Secret = { name = local.has_issuer ? "" : "tallyhouse-keys", key = "auth" }
      jwksUrl     = var.authentication.jwks_url
      issuer      = var.authentication.issuer
      audience    = var.authentication.audience
    }
    cursorSecret = { name = "tallyhouse-keys", key = "cursors" }
    ticketing = {
      enabled           = true
      adminTokensSecret = { name = "tallyhouse-ticketing", key = "tokens" }
      databaseUrlSecret = { name = "tallyhouse-ticketing", key = "url" }
    }
    azureKeyVault = {
      enabled  = true
      name     = azurerm_key_vault.this.name
      tenantId = data.azurerm_client_config.current.tenant_id
      clientId = azurerm_user_assigned_identity.this["service"].client_id
      secrets  = local.kubernetes_secrets
    }
    serviceAccount = {
      annotations = { "azure.workload.identity/client-id" = azurerm_user_assigned_identity.this["service"].client_id }
    }
    podLabels    = { "azure.workload.identity/use" = "true" }
    nodeSelector = { "tallyhouse/pool" = "service" }
    log          = { size = "${var.service.log_size_gib}Gi", bytesMax = var.service.log_bytes_max, storageClass = "managed-csi-premium" }
    resources    = { requests = { cpu = var.service.cpu, memory = var.service.memory }, limits = { memory = var.service.memory } }
    service = {
      type = "LoadBalancer"
      # Calls go to the node of the pod and keep their addresses, by which the network policy admits them.
      externalTrafficPolicy = "Local"
      annotations = {
        "service.beta.kubernetes.io/azure-load-balancer-internal"        = "true"
        "service.beta.kubernetes.io/azure-load-balancer-internal-subnet" = "load_balancer"
        "service.beta.kubernetes.io/azure-load-balancer-ipv4"            = local.load_balancer_address
        "service.beta.kubernetes.io/azure-pls-create"                    = "true"
        "service.beta.kubernetes.io/azure-pls-name"                      = local.private_link_service
        "service.beta.kubernetes.io/azure-pls-ip-configuration-subnet"   = "load_balancer"
        # Front Door's side is approved by hand, once: README.md.
        "service.beta.kubernetes.io/azure-pls-visibility" = "*"
      }
    }
    networkPolicy = {
      # Calls by the private link come from addresses of the load balancer's subnet.
      ingressFrom  = [for range in concat([local.subnets.load_balancer], var.caller_ip_ranges) : { ipBlock = { cidr = range } }]
      clickhouseTo = [{ ipBlock = { cidr = "${local.clickhouse_address}/32" } }]
      extraEgress  = [{ to = [{ ipBlock = { cidr = local.subnets.postgresql } }], ports = [{ port = 5432, protocol = "TCP" }] }]
    }
  }
}
