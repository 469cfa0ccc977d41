# The public entry: TLS, a firewall and a limit for each address. It reaches the
# service through a private link, so the service has no public address.

resource "azurerm_cdn_frontdoor_profile" "this" {
  name                = "afd-${local.name}"
  resource_group_name = azurerm_resource_group.this.name
  # Premium: private links and managed rules.
  sku_name                 = "Premium_AzureFrontDoor"
  response_timeout_seconds = 60
  tags                     = local.tags

  # Cursors and filters of callers stay out of the logs.
  log_scrubbing_rule {
    match_variable = "QueryStringArgNames"
  }
}

resource "azurerm_cdn_frontdoor_endpoint" "this" {
  name                     = local.name
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id
  tags                     = local.tags
}

resource "azurerm_cdn_frontdoor_origin_group" "this" {
  name                     = "service"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id
  session_affinity_enabled = false

  load_balancing {
    sample_size                 = 4
    successful_samples_required = 2
  }

  # There is one origin. The probe is for the log: an unhealthy single origin is called all the same.
  health_probe {
    protocol            = "Http"
    path                = "/readyz"
    request_type        = "GET"
    interval_in_seconds = 60
  }
}

locals {
  # The chart's service makes it: see the annotations in the output helm_values. It is beside the load balancer, in the
  # group of the nodes: there, Azure gives the cluster's identity the role that it needs.
  private_link_service_id = "${azurerm_kubernetes_cluster.this.node_resource_group_id}/providers/Microsoft.Network/privateLinkServices/${local.private_link_service}"
  private_link_service    = "pls-${local.name}"
}

resource "azurerm_cdn_frontdoor_origin" "this" {
  count = var.front_door.origin_ready ? 1 : 0

  name                           = "service"
  cdn_frontdoor_origin_group_id  = azurerm_cdn_frontdoor_origin_group.this.id
  host_name                      = local.load_balancer_address
  origin_host_header             = local.public_host
  http_port                      = 8080
  certificate_name_check_enabled = true

  private_link {
    location               = azurerm_resource_group.this.location
    private_link_target_id = local.private_link_service_id
    request_message        = "Front Door of ${local.name}"
  }
}

locals {
  public_host = var.front_door.host_name == "" ? azurerm_cdn_frontdoor_endpoint.this.host_name : var.front_door.host_name
}

resource "azurerm_cdn_frontdoor_custom_domain" "this" {
  count = var.front_door.host_name == "" ? 0 : 1

  name                     = "public"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id
  host_name                = var.front_door.host_name

  tls {
    certificate_type = "ManagedCertificate"
    minimum_version  = "TLS12"
  }
}

resource "azurerm_cdn_frontdoor_route" "this" {
  count = var.front_door.origin_ready ? 1 : 0

  name                            = "all"
  cdn_frontdoor_endpoint_id       = azurerm_cdn_frontdoor_endpoint.this.id
  cdn_frontdoor_origin_group_id   = azurerm_cdn_frontdoor_origin_group.this.id
  cdn_frontdoor_origin_ids        = azurerm_cdn_frontdoor_origin.this[*].id
  cdn_frontdoor_custom_domain_ids = azurerm_cdn_frontdoor_custom_domain.this[*].id
  link_to_default_domain          = var.front_door.host_name == ""
  patterns_to_match               = ["/*"]
  supported_protocols             = ["Http", "Https"]
  https_redirect_enabled          = true
  # Inside the private link and the encrypted network. Nothing is cached: answers say how fresh they are.
  forwarding_protocol = "HttpOnly"
}

resource "azurerm_cdn_frontdoor_firewall_policy" "this" {
  name                       = "waf${local.unique_name}"
  resource_group_name        = azurerm_resource_group.this.name
  sku_name                   = azurerm_cdn_frontdoor_profile.this.sku_name
  mode                       = var.front_door.firewall_mode
  request_body_check_enabled = true
  tags                       = local.tags

  # What only operators need is not public.
  custom_rule {
    name     = "InternalPaths"
    type     = "MatchRule"
    action   = "Block"
    priority = 10

    match_condition {
      match_variable = "RequestUri"
      operator       = "RegEx"
      match_values   = ["^https?://[^/]+/(metrics|healthz|readyz)([?/]|$)"]
      transforms     = ["Lowercase", "UrlDecode"]
    }
  }

  custom_rule {
    name                           = "RateByAddress"
    type                           = "RateLimitRule"
    action                         = "Block"
    priority                       = 20
    rate_limit_duration_in_minutes = 1
    rate_limit_threshold           = var.front_door.requests_per_minute_max

    match_condition {
      match_variable     = "SocketAddr"
      operator           = "IPMatch"
      negation_condition = true
      match_values       = ["192.0.2.0/24"]
    }
  }

  managed_rule {
    type    = "Microsoft_DefaultRuleSet"
    version = "2.1"
    action  = "Block"

    # Events hold texts of users, which look like anything. The service binds every
    # value, and no text of an event becomes a part of a statement.
    override {
      rule_group_name = "SQLI"
      exclusion {
        match_variable = "RequestBodyJsonArgNames"
        operator       = "EqualsAny"
        selector       = "*"
      }
    }
    # It knows no content type of grpc-web. The service refuses those that it does not take.
    override {
      rule_group_name = "PROTOCOL-ENFORCEMENT"
      rule {
        rule_id = "920420"
        action  = "Log"
        enabled = false
      }
    }
    override {
      rule_group_name = "XSS"
      exclusion {
        match_variable = "RequestBodyJsonArgNames"
        operator       = "EqualsAny"
        selector       = "*"
      }
    }
  }

  managed_rule {
    type    = "Microsoft_BotManagerRuleSet"
    version = "1.1"
    action  = "Block"
  }
}

resource "azurerm_cdn_frontdoor_security_policy" "this" {
  name                     = "firewall"
  cdn_frontdoor_profile_id = azurerm_cdn_frontdoor_profile.this.id

  security_policies {
    firewall {
      cdn_frontdoor_firewall_policy_id = azurerm_cdn_frontdoor_firewall_policy.this.id

      association {
        patterns_to_match = ["/*"]

        domain {
          cdn_frontdoor_domain_id = azurerm_cdn_frontdoor_endpoint.this.id
        }
        dynamic "domain" {
          for_each = azurerm_cdn_frontdoor_custom_domain.this[*].id
          content {
            cdn_frontdoor_domain_id = domain.value
          }
        }
      }
    }
  }
}
