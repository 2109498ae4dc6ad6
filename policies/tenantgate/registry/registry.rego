# METADATA
# title: Registry
# description: |
#   What the compiled registry says about the tenant of the request. It stands in two layers: `base`, the whole registry as of a
#   moment, and above it, where there is one, `overlay`, with all that changed since. What is said of a tenant is taken from one
#   layer alone, and so is the shared catalogue. Everything that is said of a tenant goes through `tenant`, so that no rule can
#   reach another tenant's data.
# schemas:
#   - input: schema.input
#   - data.registry: schema.registry
package tenantgate.registry

# METADATA
# description: |
#   What the base says of itself: its revision and moment, and the extensions, which an overlay cannot change as it brings no Rego.
meta := data.registry.base.meta

# METADATA
# description: |
#   All that belongs to the tenant, from the layer that has the newer version; undefined where there is no such tenant. A version
#   is a moment by which the document had surely been read: where it is that of the base, either may be the newer one. Then it is
#   the overlay, which will be brought what it has missed, while nobody brings again what it had.
#
#   OPA converts of it what is looked at and no more, unless it is compared, given to a function or put into another value. So the
#   cost of a decision does not grow with the tenant.
tenant := document if {
	layers := data.registry
	document := layers.base.tenants[input.tenant.id]
	not layers.overlay.tenants[input.tenant.id]
} else := document if {
	document := data.registry.overlay.tenants[input.tenant.id]
	document.terms.version >= meta.as_of
} else := data.registry.base.tenants[input.tenant.id]

# METADATA
# description: The shared catalogue, from the layer that has the newer version of it.
catalogue := resources if {
	layers := data.registry
	resources := layers.base.shared.resources
	not layers.overlay.shared
} else := data.registry.overlay.shared.resources if {
	data.registry.overlay.shared.version >= meta.as_of
} else := data.registry.base.shared.resources

# METADATA
# description: |
#   What the tenant says of itself: its status, its `membership`, and whether it lists `agents`. It has no status when there is no
#   such tenant: it is then empty, or says `removed`.
default terms := {}

terms := tenant.terms

# METADATA
# description: |
#   What every answer says of the registry: its revision, the moment in DynamoDB that it reflects (in microseconds since 1970),
#   and the oldest registry, in seconds, that the tenant accepts an answer from, where it sets a bound. Undefined, and with it
#   every answer, where the registry does not list its extensions, or an overlay does not say what it holds: they must not be
#   passed over.
state := {"revision": revision, "as_of": as_of, "max_staleness_seconds": bound} if {
	bound := terms.max_staleness_seconds
	[revision, as_of, extensions] := reflected
	extensions
} else := {"revision": revision, "as_of": as_of} if {
	[revision, as_of, extensions] := reflected
	extensions
}

# METADATA
# description: |
#   The revision and the moment of `state`, and the extensions. Only an overlay that goes back to the moment of the base, or further,
#   completes it to the overlay's own moment; usually it was made beside that base. With one that begins later, and leaves out what
#   changed in between, or with one that is older, the answer is as old as the base, and may be newer in parts: both have a part in
#   its name.
reflected := [overlay.revision, overlay.as_of, base.extensions] if {
	layers := data.registry
	overlay := layers.overlay.meta
	base := layers.base.meta
	overlay.base == base.revision
	overlay.since <= base.as_of
	overlay.as_of >= base.as_of
} else := [base.revision, base.as_of, base.extensions] if {
	layers := data.registry
	[true | _ := layers.overlay] == []
	base := layers.base.meta
} else := [sprintf("%s+%s", [overlay.revision, meta.revision]), overlay.as_of, meta.extensions] if {
	overlay := data.registry.overlay.meta
	overlay.since <= meta.as_of
	overlay.as_of >= meta.as_of
} else := [sprintf("%s+%s", [meta.revision, overlay.revision]), meta.as_of, meta.extensions] if {
	overlay := data.registry.overlay.meta
	overlay.since
	overlay.as_of
}

# METADATA
# description: |
#   What the tenant lets the subject have: its `policies`, `roles` and `attributes`, where it has any. Undefined when there is no
#   membership, or it is suspended.
membership := json.unmarshal(tenant.members[input.subject.id])

# METADATA
# description: The subject's membership is suspended.
membership_suspended if tenant.suspended.members[input.subject.id]

# METADATA
# description: The principal as the tenant lists it; undefined when it does not.
principal := agent(input.principal.id)

# METADATA
# description: The agent as the tenant lists it; undefined when it does not.
agent(id) := {"status": "ACTIVE", "scopes": json.unmarshal(text)} if {
	text := tenant.agents[id]
} else := {"status": "SUSPENDED", "scopes": json.unmarshal(tenant.suspended.agents[id])}

# METADATA
# description: |
#   The catalogued resource: the tenant's own entry, else the shared one; undefined when neither is there.
resource(type, id) := object.union_n([
	{"access": entry[0] | not entry[0] == ""},
	{"status": entry[1] | not entry[1] == ""},
	{"attributes": json.unmarshal(entry[2]) | entry[2]},
]) if {
	entry := entries(type, id)[0]
}

# METADATA
# description: The resource is shut off, for the tenant or for all.
resource_suspended(type, id) if entries(type, id)[_][1] == "SUSPENDED"

# METADATA
# description: |
#   What the catalogues list of a resource, the tenant's own entry before the shared one: access, status and attributes, each
#   a text, which is empty or left out where it says nothing.
entries(type, id) := array.concat(
	[split(entry, "\n") | entry := tenant.resources[key]],
	[split(entry, "\n") | entry := catalogue[key]],
) if {
	key := concat("\t", [type, id])
}

# METADATA
# description: |
#   The tenant's rules that concern a resource, in the order in which they are named: each is an effect, a policy, an id and the
#   rest.
rules(type, id) := [rule(number) | some number in split(numbers(type, id), " ")]

# METADATA
# description: The numbers of the rules that concern a resource, with blanks between them; undefined where none does.
numbers(type, id) := concerning(type, concat("\t", [type, id]))[0]

# METADATA
# description: The tenant's rule with a number.
rule(number) := json.unmarshal(tenant.rules[number])

# METADATA
# description: |
#   What is listed for the resource with a key: the numbers of all rules that concern it and, where all of them allow whatever is
#   asked, policy, id and reason of the first. Empty where no rule concerns it. Under an id that a rule names stand also those
#   that concern it by a glob.
concerning(type, key) := split(listed, "\t") if {
	listed := tenant.exact[key]
} else := _together([array.slice(listed, 1, 5) |
	# Globs are filed under the key as far as the text before their first wildcard, so that those to try are found by one look-up for
	# each distinct length of such a text, however many there are. All of these are cut from the key by one format. A line break in
	# what is asked for makes more of them; each must begin the key all the same.
	document := tenant
	some under in split(sprintf(document.cuts[type], [key]), "\n")
	some line in split(document.globs[under], "\n")
	startswith(key, under)
	listed := split(line, "\t")
	regex.match(listed[0], trim_prefix(key, under))
])

# What is listed for all globs that accept a resource, as if it were listed once.
_together(several) := [] if several == []

_together([listed]) := listed

_together(several) := [concat(" ", numbers)] if {
	several[1]
	numbers := {number | some listed in several; some number in split(listed[0], " ")}
}

# METADATA
# description: |
#   The users that the tenant names: its members, suspended or not, and those in rules that concern a resource. This and the
#   next two list, for searches, what a decision never does: they grow with the tenant.
users(type, id) := (active | suspended) | in_rules if {
	active := {user | some user, _ in tenant.members}
	suspended := {user | some user, _ in tenant.suspended.members}
	in_rules := {user |
		some [_, _, _, rest] in rules(type, id)
		some ["subjects", subjects] in rest.narrowing
		some user in subjects.users
	}
}

# METADATA
# description: |
#   The ids of the resources of a type that the catalogues hold, the tenant's and the shared one, or the tenant's rules name.
resource_ids(type) := (own | shared) | in_rules if {
	own := {id | some key, _ in tenant.resources; [type, id] = split(key, "\t")}
	shared := {id | some key, _ in catalogue; [type, id] = split(key, "\t")}
	in_rules := {id | some key, _ in tenant.exact; [type, id] = split(key, "\t")}
}

# METADATA
# description: |
#   The actions that rules which concern a resource name. A rule that names none is about any: `invoke` stands for them.
action_names(type, id) := {name |
	some [_, _, _, rest] in rules(type, id)
	some name in _actions(object.get(rest, "narrowing", []))
}

_actions(narrowing) := names if {
	some ["actions", names] in narrowing
} else := ["invoke"]
