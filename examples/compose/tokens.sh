#!/bin/sh
# The job of compose.yaml that is the identity provider: keys of a development issuer, and a token for each caller, good for a day.
set -eu
umask 077

tenantgate token issuer keys/issuer >/dev/null
cp keys/issuer/jwks.json trust/jwks.json

mint() {
	name=$1
	shift
	tenantgate token mint --issuer-dir keys/issuer --lifetime 86000 "$@" >"tokens/$name.jwt"
}
mint alice --tenant acme --subject alice --principal agent:order-bot --scope tools:read --scope tools:write
mint alice-reads --tenant acme --subject alice --principal agent:report-bot --scope tools:read
mint mallory --tenant acme --subject mallory --principal agent:order-bot --scope tools:read
mint carol --tenant globex --subject carol --principal agent:order-bot --scope tools:read --scope tools:write
mint peter --tenant initech --subject peter --principal agent:order-bot --scope tools:read
