#!/bin/sh
# The job of compose.yaml that makes what control plane and OPA need: table, registry, buckets, keys, the first bundle. Run again, it
# leaves what is there.
set -eu

tenantgate registry init
mkdir -p /tmp/registry
cp /examples/quickstart/registry.yaml /examples/compose/memory.yaml /tmp/registry
tenantgate registry import /tmp/registry
python3 -c 'import boto3; s3 = boto3.client("s3"); [s3.create_bucket(Bucket=name) for name in ("exports", "bundles")]'

umask 077
[ -e keys/ours.key ] || tenantgate bundle keygen keys/ours
cp keys/ours.pub trust/ours.pub
[ -e trust/bundles.token ] || python3 -c 'import secrets; print(secrets.token_urlsafe(32), end="")' >trust/bundles.token

# From here on the watcher keeps it.
[ -e bundles/base.tar.gz ] || tenantgate bundle build --key keys/ours.key --out bundles/base.tar.gz \
	--export "$(tenantgate registry export --scan --to s3://exports/registry)"
