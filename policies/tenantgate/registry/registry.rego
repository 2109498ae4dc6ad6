# METADATA
# title: Registry
# description: |
#   What the compiled registry says about the tenant of the request. Every reference goes through
#   `data.registry.base.tenants[input.tenant.id]`, so that no rule can reach another tenant's data, and every reference is
#   a full path, so that the cost of a decision does not grow with the size of the tenant's document.
# schemas:
#   - input: schema.input
#   - data.registry.base: schema.registry
package tenantgate.registry

# METADATA
# description: The state of the registry that the decision is made under.
revision := data.registry.base.meta.revision

# METADATA
# description: The moment of the registry in DynamoDB that the revision reflects, in microseconds since 1970.
as_of := data.registry.base.meta.as_of

# METADATA
# description: The tenant's status; undefined when there is no such tenant.
tenant_status := data.registry.base.tenants[input.tenant.id].status

# METADATA
# description: The oldest registry, in seconds, that the tenant accepts a decision from; undefined when it sets no bound.
max_staleness_seconds := data.registry.base.tenants[input.tenant.id].max_staleness_seconds

# METADATA
# description: The tenant requires its users to be members.
keeps_memberships if data.registry.base.tenants[input.tenant.id].membership == "REQUIRED"

# METADATA
# description: The tenant lists the agents that may act for its users.
keeps_agents if data.registry.base.tenants[input.tenant.id].agents

# METADATA
# description: The subject's membership, suspended or not; undefined when there is none.
membership := data.registry.base.tenants[input.tenant.id].members[input.subject.id]

# METADATA
# description: The agent as the tenant lists it; undefined when it does not.
agent(id) := data.registry.base.tenants[input.tenant.id].agents[id]

# METADATA
# description: |
#   The catalogued resource: the tenant's own entry, else the shared one; undefined when neither is there.
resource(type, id) := entry if {
	entry := data.registry.base.tenants[input.tenant.id].resources[type][id]
} else := data.registry.base.shared.resources[type][id]

# METADATA
# description: |
#   The tenant's rules that concern a resource, by policy id and then by position. Exact ids are one look-up. A glob is
#   filed under the literal text before its first wildcard, so that the globs to try are found by one look-up for each
#   distinct length of such a text, however many globs there are.
rules(type, id) := [data.registry.base.tenants[input.tenant.id].rules[i] | some i in _positions(type, id)]

_positions(type, id) := _exact(type, id) if {
	not data.registry.base.tenants[input.tenant.id].globs[type]
} else := {i | some i in _exact(type, id)} | {glob.rule |
	some length in data.registry.base.tenants[input.tenant.id].globs[type].lengths
	prefix := substring(id, 0, length)
	some glob in data.registry.base.tenants[input.tenant.id].globs[type].under[prefix]
	_rest_matches(glob, substring(id, length, -1))
}

_exact(type, id) := positions if {
	positions := data.registry.base.tenants[input.tenant.id].exact[type][id]
} else := []

_rest_matches(glob, _) if not glob.rest

_rest_matches(glob, rest) if regex.match(glob.rest, rest)
