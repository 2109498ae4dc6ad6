# The registry: the table as `tenantgate registry init` makes it, under a key of its own.

resource "aws_kms_key" "data" {
  description         = "tenantgate: the registry and its bundles"
  enable_key_rotation = true
}

resource "aws_kms_alias" "data" {
  name          = "alias/tenantgate-data"
  target_key_id = aws_kms_key.data.key_id
}

resource "aws_dynamodb_table" "registry" {
  name                        = var.table
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  stream_enabled              = true
  stream_view_type            = "NEW_AND_OLD_IMAGES"
  deletion_protection_enabled = true

  attribute {
    name = "pk"
    type = "S"
  }

  attribute {
    name = "sk"
    type = "S"
  }

  # in which tenants a user is
  global_secondary_index {
    name            = "inverted"
    hash_key        = "sk"
    range_key       = "pk"
    projection_type = "ALL"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = aws_kms_key.data.arn
  }
}
