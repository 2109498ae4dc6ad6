variable "table" {
  description = "Name of the registry table; `tenantgate bundle watch --table` has the same default."
  type        = string
  default     = "tenantgate-registry"
}

variable "bucket" {
  description = "Name of the bucket that bundles are published in; no other account in the world may have it."
  type        = string
}

variable "prefix" {
  description = "Where in the bucket the bundles are: bundles.source is s3://BUCKET/PREFIX."
  type        = string
  default     = "registry"
}

variable "tenant_role" {
  description = "Name of the role that is assumed for every tenant; `tenantgate iam role` writes it."
  type        = string
  default     = "tenant-data"
}

variable "oidc_provider" {
  description = "The OIDC provider of an EKS cluster, as an ARN, whose service account is the sidecar; null without EKS."
  type        = string
  default     = null
}

variable "service_account" {
  description = "The service account of the sidecar in that cluster, as NAMESPACE:NAME."
  type        = string
  default     = "agents:agent"
}
