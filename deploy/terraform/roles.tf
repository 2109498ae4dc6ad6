# Two roles: who publishes bundles, and who reads them and gives credentials. The third, which is assumed for every tenant, is
# written by `tenantgate iam role`: docs/deploy.md.

locals {
  cluster     = var.oidc_provider != null
  issuer      = local.cluster ? split(":oidc-provider/", var.oidc_provider)[1] : ""
  objects     = "${aws_s3_bucket.bundles.arn}/${var.prefix}/*"
  tenant_role = "arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:role/${var.tenant_role}"
}

# ── the publisher, which runs `tenantgate bundle watch` ──────────────────────────────────────────────────────────────────

data "aws_iam_policy_document" "tasks" {
  statement {
    sid     = "TasksOfThisAccount"
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

data "aws_iam_policy_document" "publisher" {
  statement {
    sid       = "ReadRegistry"
    actions   = ["dynamodb:BatchGetItem", "dynamodb:DescribeTable", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan"]
    resources = [aws_dynamodb_table.registry.arn]
  }

  statement {
    sid       = "FollowRegistry"
    actions   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
    resources = ["${aws_dynamodb_table.registry.arn}/stream/*"]
  }

  statement {
    sid       = "Publish"
    actions   = ["s3:PutObject"]
    resources = [local.objects]
  }

  statement {
    sid       = "UseData"
    actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
    resources = [aws_kms_key.data.arn]
  }

  statement {
    sid       = "Sign"
    actions   = ["kms:Sign"]
    resources = [aws_kms_key.release.arn]
  }
}

resource "aws_iam_role" "publisher" {
  name               = "tenantgate-publisher"
  assume_role_policy = data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy" "publisher" {
  name   = "publish"
  role   = aws_iam_role.publisher.id
  policy = data.aws_iam_policy_document.publisher.json
}

# ── the sidecar ──────────────────────────────────────────────────────────────────────────────────────────────────────────

data "aws_iam_policy_document" "service_account" {
  count = local.cluster ? 1 : 0

  statement {
    sid     = "ServiceAccountOfTheCluster"
    actions = ["sts:AssumeRoleWithWebIdentity"]

    principals {
      type        = "Federated"
      identifiers = [var.oidc_provider]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:sub"
      values   = ["system:serviceaccount:${var.service_account}"]
    }

    condition {
      test     = "StringEquals"
      variable = "${local.issuer}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

data "aws_iam_policy_document" "sidecar" {
  statement {
    sid       = "ReadBundles"
    actions   = ["s3:GetObject"]
    resources = [local.objects]
  }

  # without it, S3 says of a bundle that is not there yet that access is denied
  statement {
    sid       = "SeeThatThereIsNone"
    actions   = ["s3:ListBucket"]
    resources = [aws_s3_bucket.bundles.arn]
  }

  statement {
    sid       = "UseData"
    actions   = ["kms:Decrypt"]
    resources = [aws_kms_key.data.arn]
  }
}

# What `tenantgate iam caller` prints. Not on ECS, where all containers of a task have its role: the agent could assume the role of the
# tenants' data by itself, for any tenant. There, credentials.method is web_identity, which needs no permission.
data "aws_iam_policy_document" "caller" {
  statement {
    sid       = "GiveTenantCredentials"
    actions   = ["sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"]
    resources = [local.tenant_role]
  }
}

resource "aws_iam_role" "sidecar" {
  name               = "tenantgate-sidecar"
  assume_role_policy = local.cluster ? data.aws_iam_policy_document.service_account[0].json : data.aws_iam_policy_document.tasks.json
}

resource "aws_iam_role_policy" "sidecar" {
  name   = "read-bundles"
  role   = aws_iam_role.sidecar.id
  policy = data.aws_iam_policy_document.sidecar.json
}

resource "aws_iam_role_policy" "caller" {
  count  = local.cluster ? 1 : 0
  name   = "give-tenant-credentials"
  role   = aws_iam_role.sidecar.id
  policy = data.aws_iam_policy_document.caller.json
}
