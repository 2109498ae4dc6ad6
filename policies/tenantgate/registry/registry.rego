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
# description: The state of the registry that the decision is made under, and the extensions that go with it.
meta := data.registry.base.meta

# METADATA
# description: |
#   What the tenant says of itself: a small document, read once, with its status, `membership`, whether it lists `agents`, and
#   for each resource type the `lengths` of the texts under which its globs are filed. Empty when there is no such tenant.
default terms := {}

terms := data.registry.base.tenants[input.tenant.id].terms

# METADATA
# description: |
#   What every answer says of the registry: its revision, the moment in DynamoDB that it reflects (in microseconds since 1970),
#   and the oldest registry, in seconds, that the tenant accepts an answer from, where it sets a bound. Undefined, and with it
#   every answer, where the registry does not list its extensions: they must not be passed over.
state := object.union({"revision": meta.revision, "as_of": meta.as_of}, {"max_staleness_seconds": bound |
	bound := terms.max_staleness_seconds
}) if {
	meta.extensions
}

# METADATA
# description: The subject's membership, suspended or not; undefined when there is none.
membership := data.registry.base.tenants[input.tenant.id].members[input.subject.id]

# METADATA
# description: The principal as the tenant lists it; undefined when it does not.
principal := data.registry.base.tenants[input.tenant.id].agents[input.principal.id]

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
# description: The resource is shut off, for the tenant or for all.
resource_suspended(type, id) if data.registry.base.tenants[input.tenant.id].resources[type][id].status == "SUSPENDED"

resource_suspended(type, id) if data.registry.base.shared.resources[type][id].status == "SUSPENDED"

# METADATA
# description: |
#   The tenant's rules that concern a resource, by policy id and then by position. Exact ids are one look-up. A glob is
#   filed under the literal text before its first wildcard, so that the globs to try are found by one look-up for each
#   distinct length of such a text, however many globs there are.
rules(type, id) := [data.registry.base.tenants[input.tenant.id].rules[i] | some i in positions] if {
	exact := {i | some i in data.registry.base.tenants[input.tenant.id].exact[type][id]}
	positions := exact | {glob.rule |
		some length in terms.lengths[type]
		prefix := substring(id, 0, length)
		some glob in data.registry.base.tenants[input.tenant.id].globs[type][prefix]
		_rest_matches(glob, substring(id, length, -1))
	}
}

_rest_matches(glob, _) if not glob.rest

_rest_matches(glob, rest) if regex.match(glob.rest, rest)
