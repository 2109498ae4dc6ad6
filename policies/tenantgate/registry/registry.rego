# METADATA
# title: Registry
# description: |
#   What the compiled registry says about the tenant of the request. It stands in two layers: `base`, the whole registry as of a
#   moment, and above it, where there is one, `overlay`, with all that changed since. What is said of a tenant is taken from one
#   layer alone, and so is the shared catalogue. Every reference to a tenant goes through
#   `data.registry[_layer].tenants[input.tenant.id]`, so that no rule can reach another tenant's data, and every reference is
#   a full path, so that the cost of a decision does not grow with the size of the tenant's document.
# schemas:
#   - input: schema.input
#   - data.registry: schema.registry
package tenantgate.registry

# METADATA
# description: |
#   What the base says of itself: its revision and moment, and the extensions, which an overlay cannot change as it brings no Rego.
meta := data.registry.base.meta

# The layer that the tenant is taken from. A version is a moment by which the document had surely been read: where it is that of
# the base, either may be the newer one. Then it is the overlay, which will be brought what it has missed, while nobody brings
# again what it had. Whether there is an overlay at all is asked first, as that is a cheaper question than one about a tenant.
default _layer := "base"

_layer := "overlay" if {
	data.registry.overlay.meta
	data.registry.overlay.tenants[input.tenant.id].terms.version >= data.registry.base.meta.as_of
}

# The layer that the shared catalogue is taken from, by the same rule.
default _shared_layer := "base"

_shared_layer := "overlay" if data.registry.overlay.shared.version >= data.registry.base.meta.as_of

# METADATA
# description: |
#   What the tenant says of itself: a small document, read once, with its status, `membership`, whether it lists `agents`, and
#   for each resource type the `lengths` of the texts under which its globs are filed. It has no status when there is no such
#   tenant: it is then empty, or says `removed`.
default terms := {}

terms := data.registry[_layer].tenants[input.tenant.id].terms

# METADATA
# description: |
#   What every answer says of the registry: its revision, the moment in DynamoDB that it reflects (in microseconds since 1970),
#   and the oldest registry, in seconds, that the tenant accepts an answer from, where it sets a bound. Undefined, and with it
#   every answer, where the registry does not list its extensions, or an overlay does not say what it holds: they must not be
#   passed over.
state := object.union(_reflected, {"max_staleness_seconds": bound | bound := terms.max_staleness_seconds}) if {
	meta.extensions
}

_reflected := reflected if {
	reflected := _reflected_by(data.registry.overlay.meta)
} else := {"revision": meta.revision, "as_of": meta.as_of} if {
	not _overlaid
}

# There is an overlay, of whatever kind. Not asked where it says what it holds, as this reads all of it.
_overlaid if type_name(data.registry.overlay)

# Only an overlay that goes back to the moment of the base, or further, completes it to the overlay's own moment. With one that
# begins later, and leaves out what changed in between, or with one that is older, the answer is as old as the base, and may be
# newer in parts: both have a part in its name.
_reflected_by(overlay) := {"revision": _joint_revision(overlay), "as_of": overlay.as_of} if {
	overlay.since <= meta.as_of
	overlay.as_of >= meta.as_of
} else := {"revision": sprintf("%s+%s", [meta.revision, overlay.revision]), "as_of": meta.as_of} if {
	overlay.since
	overlay.as_of
}

_joint_revision(overlay) := overlay.revision if {
	overlay.base == meta.revision
} else := sprintf("%s+%s", [overlay.revision, meta.revision])

# METADATA
# description: The subject's membership, suspended or not; undefined when there is none.
membership := data.registry[_layer].tenants[input.tenant.id].members[input.subject.id]

# METADATA
# description: The principal as the tenant lists it; undefined when it does not.
principal := data.registry[_layer].tenants[input.tenant.id].agents[input.principal.id]

# METADATA
# description: The agent as the tenant lists it; undefined when it does not.
agent(id) := data.registry[_layer].tenants[input.tenant.id].agents[id]

# METADATA
# description: |
#   The catalogued resource: the tenant's own entry, else the shared one; undefined when neither is there.
resource(type, id) := entry if {
	entry := data.registry[_layer].tenants[input.tenant.id].resources[type][id]
} else := data.registry[_shared_layer].shared.resources[type][id]

# METADATA
# description: The resource is shut off, for the tenant or for all.
resource_suspended(type, id) if data.registry[_layer].tenants[input.tenant.id].resources[type][id].status == "SUSPENDED"

resource_suspended(type, id) if data.registry[_shared_layer].shared.resources[type][id].status == "SUSPENDED"

# METADATA
# description: |
#   The tenant's rules that concern a resource, by policy id and then by position. Exact ids are one look-up. A glob is
#   filed under the literal text before its first wildcard, so that the globs to try are found by one look-up for each
#   distinct length of such a text, however many globs there are.
rules(type, id) := [data.registry[layer].tenants[input.tenant.id].rules[i] | some i in positions] if {
	layer := _layer
	exact := {i | some i in data.registry[layer].tenants[input.tenant.id].exact[type][id]}
	positions := exact | {glob.rule |
		some length in terms.lengths[type]
		prefix := substring(id, 0, length)
		some glob in data.registry[layer].tenants[input.tenant.id].globs[type][prefix]
		_rest_matches(glob, substring(id, length, -1))
	}
}

_rest_matches(glob, _) if not glob.rest

_rest_matches(glob, rest) if regex.match(glob.rest, rest)

# METADATA
# description: |
#   The users that the tenant names: its members, suspended or not, and those in rules that concern a resource. This and the
#   next two list, for searches, what a decision never does: they grow with the tenant.
users(type, id) := members | {user | some rule in rules(type, id); some user in rule.subjects.users} if {
	members := {user | some user in object.keys(data.registry[_layer].tenants[input.tenant.id].members)}
}

# METADATA
# description: |
#   The ids of the resources of a type that the catalogues hold, the tenant's and the shared one, or the tenant's rules name.
resource_ids(type) := (own | shared) | in_rules if {
	own := {id | some id in object.keys(data.registry[_layer].tenants[input.tenant.id].resources[type])}
	shared := {id | some id in object.keys(data.registry[_shared_layer].shared.resources[type])}
	in_rules := {id | some id in object.keys(data.registry[_layer].tenants[input.tenant.id].exact[type])}
}

# METADATA
# description: |
#   The actions that rules which concern a resource name. A rule that names none is about any: `invoke` stands for them.
action_names(type, id) := {name | some rule in rules(type, id); some name in object.get(rule, "actions", ["invoke"])}
