# METADATA
# title: Fixtures of the tests
# description: |
#   A compiled registry as the compiler writes it, and a request, each with a function that changes what a case is about. The
#   file is named like a test so that no bundle takes it in.
package tenantgate.testing

# METADATA
# description: |
#   Three tenants: acme keeps memberships and agents, globex is a plain table's, initech is suspended. Each case that is about
#   rules gives globex its own.
registry := {
	"meta": {"revision": "20260102T030405Z-0123456789ab", "as_of": 1767323045000000, "extensions": [], "format": 1},
	"shared": {"resources": {"TOOL": {
		"agent:tool:order-lookup": {"access": "READ", "attributes": {"owner": "orders"}},
		"agent:tool:order-cancel": {"access": "WRITE"},
	}}},
	"tenants": {
		"acme": {
			"terms": {
				"status": "ACTIVE",
				"membership": "REQUIRED",
				"agents": true,
				"max_staleness_seconds": 900,
				"lengths": {"TOOL": [11, 17], "AGENT": [6], "MEMORY": [0]},
			},
			"members": {
				"alice": {
					"status": "ACTIVE",
					"policies": ["POL-SUPPORT"],
					"roles": ["support"],
					"attributes": {"region": "eu"},
				},
				"bob": {"status": "ACTIVE"},
				"carol": {
					"status": "SUSPENDED",
					"policies": ["POL-SUPPORT"],
					"roles": ["support"],
					"attributes": {"region": "eu"},
				},
			},
			"agents": {
				"agent:order-bot": {"scopes": ["memory:read", "tools:read", "tools:write"], "status": "ACTIVE"},
				"agent:report-bot": {"scopes": ["tools:read"], "status": "ACTIVE"},
				"agent:old-bot": {"scopes": ["tools:read"], "status": "SUSPENDED"},
			},
			"resources": {"TOOL": {"agent:tool:order-export": {"access": "WRITE", "attributes": {"pii": true}}}},
			"rules": [
				{
					"policy": "POL-A",
					"id": "rule-1",
					"effect": "ALLOW",
					"reason": `allowed by rule "rule-1" of policy "POL-A"`,
				},
				{"policy": "POL-A", "id": "no-admin", "effect": "DENY", "reason": "Insufficient privileges"},
				_for_members("any-order-tool"),
				_for_members("all-of-agents"),
				_for_members("one-segment"),
				_for_members("everything"),
			],
			"exact": {"TOOL": {"agent:tool:order-lookup": [0], "agent:tool:admin-refund": [1]}},
			"globs": {
				"TOOL": {
					"agent:tool:order-": [{"rule": 2, "rest": `^(?s:[^:/]*)$`}],
					"agent:tool:": [{"rule": 4, "rest": `^(?s:[^:/]*:run)$`}],
				},
				"AGENT": {"agent:": [{"rule": 3}]},
				"MEMORY": {"": [{"rule": 5}]},
			},
		},
		"globex": {"terms": {"status": "ACTIVE", "membership": "OPTIONAL"}},
		"initech": {
			"terms": {"status": "SUSPENDED", "membership": "OPTIONAL"},
			"rules": [{"policy": "POL-I", "id": "rule-1", "effect": "ALLOW", "reason": "allowed"}],
			"exact": {"TOOL": {"agent:tool:order-lookup": [0]}},
		},
	},
}

_for_members(id) := {
	"policy": "POL-SUPPORT",
	"id": id,
	"effect": "ALLOW",
	"narrowing": ["assignment"],
	"reason": sprintf(`allowed by rule "%s" of policy "POL-SUPPORT"`, [id]),
}

# METADATA
# description: The registry with a tenant changed; objects are merged, all else is replaced.
registry_with(tenant, changes) := object.union(registry, {"tenants": {tenant: changes}})

# METADATA
# description: The registry in which the rules are those of globex, and concern the tool order-lookup.
registry_of(rules) := registry_with("globex", {
	"rules": rules,
	"exact": {"TOOL": {"agent:tool:order-lookup": [i | some i, _ in rules]}},
})

# METADATA
# description: |
#   An overlay that completes the registry to a second later, with what a case changed: by tenant, the whole document.
overlay_of(tenants) := {
	"meta": {
		"revision": "20260102T030406Z-abcdefabcdef",
		"as_of": registry.meta.as_of + 1000000,
		"since": registry.meta.as_of,
		"base": registry.meta.revision,
	},
	"tenants": tenants,
}

# METADATA
# description: Whether alice of globex may look up an order through the agent order-bot.
request := {
	"tenant": {"id": "globex"},
	"principal": {"id": "agent:order-bot"},
	"subject": {"id": "alice", "roles": [], "properties": {}},
	"delegation": [],
	"scopes": ["tools:read"],
	"accepts": [],
	"explain": false,
	"time": 1000,
	"settings": {
		"delegation": {"check": "chain", "max_depth": 3},
		"scopes": {"READ": ["tools:read", "tools:write"], "WRITE": ["tools:write"]},
	},
	"resource": {"type": "TOOL", "id": "agent:tool:order-lookup", "properties": {}},
	"action": {"name": "invoke", "properties": {}},
	"arguments": {},
	"context": {},
}

# METADATA
# description: The request changed; objects are merged, all else is replaced.
request_with(changes) := object.union(request, changes)

# METADATA
# description: The request of acme, changed.
request_of_acme(changes) := request_with(object.union({"tenant": {"id": "acme"}}, changes))

# METADATA
# description: The request that asks about many items, each given by its changes to the resource, action, arguments and context.
request_about(items, changes) := object.union(
	json.remove(request_with(changes), ["/resource", "/action", "/arguments", "/context"]),
	{"items": items},
)

# METADATA
# description: An item about the tool order-lookup that leaves the arguments open, changed.
item_with(changes) := object.union(object.filter(request, ["resource", "action", "context"]), changes)

# METADATA
# description: A condition as the compiler writes it, for a path without numeric tokens.
condition(path, op, value) := object.union({"op": op, "value": value}, _side(path))

# METADATA
# description: A condition on a path alone.
condition_on(path, op) := object.union({"op": op}, _side(path))

# METADATA
# description: A condition that compares two paths.
condition_from(path, op, other) := object.union({"op": op, "from": _side(other)}, _side(path))

_side(path) := {"path": path, "root": tokens[1], "tokens": [array.slice(tokens, 2, count(tokens))]} if {
	tokens := split(path, "/")
}

# METADATA
# description: A rule of policy P as the compiler writes it, with what a case adds.
rule(id, effect, more) := object.union(
	{"policy": "P", "id": id, "effect": effect, "reason": sprintf("%s by rule %q of policy \"P\"", [_done[effect], id])},
	more,
)

_done := {"ALLOW": "allowed", "DENY": "denied"}

# METADATA
# description: The decision on a request, under the registry with these rules of globex.
decide(rules, changes) := decide_under(registry_of(rules), request_with(changes))

# METADATA
# description: The decision on a request under a registry.
decide_under(compiled, asked) := decision if {
	decision := data.tenantgate.authorize.decision with data.registry.base as compiled with input as asked
}

# METADATA
# description: The decision on a request under a registry with an overlay.
decide_under_both(base, overlay, asked) := decision if {
	decision := data.tenantgate.authorize.decision with data.registry as {"base": base, "overlay": overlay}
		with input as asked
}

# METADATA
# description: The answer has all that is wanted; it may have more.
has(answer, wanted) if object.filter(answer, object.keys(wanted)) == wanted
