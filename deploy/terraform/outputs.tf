output "bundles_source" {
  description = "The setting bundles.source, and the --to of `tenantgate bundle watch`."
  value       = "s3://${aws_s3_bucket.bundles.bucket}/${var.prefix}"
}

output "release_pub" {
  description = "The public key of bundles, for the setting bundles.keys: a file named release.pub."
  value       = data.aws_kms_public_key.release.public_key_pem
}

output "publisher_role" {
  description = "The role of whoever runs `tenantgate bundle watch`."
  value       = aws_iam_role.publisher.arn
}

output "sidecar_role" {
  description = "The role that the sidecar runs as; the --principal of `tenantgate iam role`."
  value       = aws_iam_role.sidecar.arn
}

output "tenant_role" {
  description = "The role that is assumed for every tenant, once it is there; the --role of `tenantgate iam role`."
  value       = local.tenant_role
}
