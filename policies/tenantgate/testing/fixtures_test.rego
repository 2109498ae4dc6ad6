# METADATA
# title: Fixtures of the tests
# description: |
#   A registry and a request, each with a function that changes what a case is about. Tenants are written down in plain words, and
#   compiled here as the compiler does it. The file is named like a test so that no bundle takes it in.
package tenantgate.testing

import data.tenantgate.globs

# METADATA
# description: |
#   Three tenants: acme keeps memberships and agents, globex is a plain table's, initech is suspended. Each case that is about
#   rules gives globex its own.
registry := {
	"meta": {"revision": "20260102T030405Z-0123456789ab", "as_of": 1767323045000000, "extensions": [], "format": 2},
	"shared": {"resources": catalogue({"TOOL": {
		"agent:tool:order-lookup": {"access": "READ", "attributes": {"owner": "orders"}},
		"agent:tool:order-cancel": {"access": "WRITE"},
	}})},
	"tenants": {id: compiled(tenant) | some id, tenant in _tenants},
}

_tenants := {
	"acme": {
		"terms": {
			"status": "ACTIVE",
			"membership": "REQUIRED",
			"agents": true,
			"max_staleness_seconds": 900,
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
			{"policy": "POL-A", "id": "rule-1", "effect": "ALLOW"},
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
}

_for_members(id) := {"policy": "POL-SUPPORT", "id": id, "effect": "ALLOW", "narrowing": ["assignment"]}

# METADATA
# description: The registry with a tenant changed; objects are merged, all else is replaced.
registry_with(id, changes) := object.union(
	json.remove(registry, [sprintf("/tenants/%s", [id])]),
	{"tenants": {id: compiled(object.union(_tenants[id], changes))}},
)

# METADATA
# description: |
#   A tenant as the compiler writes it. In plain words, `rules` are objects in order, `exact` are the positions of those that
#   name an id, `globs` the positions of those with a glob, under its literal text, each with the pattern for the rest.
compiled(tenant) := object.union_n([
	{"terms": tenant.terms},
	{name: texts |
		some name in ["members", "agents"]
		texts := {id: json.marshal(_content(name, entry)) | some id, entry in tenant[name]; entry.status == "ACTIVE"}
	},
	{"suspended": {name: texts |
		some name in ["members", "agents"]
		texts := {id: json.marshal(_content(name, entry)) | some id, entry in tenant[name]; entry.status != "ACTIVE"}
	}},
	{"resources": catalogue(object.get(tenant, "resources", {}))},
	{"rules": {_number(i): json.marshal(_row(rule)) | some i, rule in tenant.rules}},
	{"exact": {_key(type, id): _listed(tenant, numbers) |
		some type, by_id in tenant.exact
		some id, named in by_id
		numbers := {i | some i in named} | {glob.rule |
			some prefix, listed in tenant.globs[type]
			some glob in listed
			startswith(id, prefix)
			regex.match(object.get(glob, "rest", ""), trim_prefix(id, prefix))
		}
	}},
	{"globs": {_key(type, prefix): concat("\n", alternatives) |
		some type, by_prefix in tenant.globs
		some prefix, listed in by_prefix
		alternatives := [sprintf("%s\t%s", [pattern, _listed(tenant, numbers)]) |
			some pattern in {object.get(glob, "rest", "^(?s:.*)$") | some glob in listed}
			numbers := {glob.rule | some glob in listed; object.get(glob, "rest", "^(?s:.*)$") == pattern}
		]
	}},
	{"cuts": {type: concat("\n", cuts) |
		some type, by_prefix in tenant.globs
		cuts := {sprintf("%%.%d[1]s", [count(_key(type, prefix))]) | some prefix, _ in by_prefix}
	}},
])

_content("members", member) := object.remove(member, ["status"])

_content("agents", agent) := agent.scopes

# METADATA
# description: A catalogue as the compiler writes it, of entries by type and id.
catalogue(resources) := {_key(type, id): trim_right(concat("\n", lines), "\n") |
	some type, by_id in resources
	some id, entry in by_id
	lines := [object.get(entry, "access", ""), object.get(entry, "status", ""), _attributes(entry)]
}

_attributes(entry) := json.marshal(entry.attributes)

_attributes(entry) := "" if not entry.attributes

_key(type, id) := sprintf("%s\t%s", [type, id])

_number(i) := sprintf("%02d", [i])

_row(rule) := [rule.effect, rule.policy, rule.id, object.union_n([
	{"reason": sprintf("%s by rule %q of policy %q", [_done[rule.effect], rule.id, rule.policy])},
	object.filter(rule, ["conditions", "reads", "obligations", "reason"]),
	{"narrowing": narrowing | narrowing := [[name, _wanted(rule, name)] | some name in rule.narrowing]; narrowing != []},
])]

_done := {"ALLOW": "allowed", "DENY": "denied"}

_wanted(rule, name) := rule[name]

_wanted(rule, "assignment") := rule.policy

# Rules that all allow whatever is asked are listed with policy, id and reason of the first.
_listed(tenant, numbers) := concat("\t", array.concat([concat(" ", [_number(i) | some i in numbers])], first)) if {
	rows := [_row(tenant.rules[i]) | some i in numbers]
	open := [row | some row in rows; row[0] == "ALLOW"; object.keys(row[3]) - {"reason"} == set()]
	first := [text |
		count(open) == count(rows)
		some text in [rows[0][1], rows[0][2], rows[0][3].reason]
	]
}

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
condition(path, op, value) := object.union_n([
	{"op": op, "value": value},
	{"regex": globs.to_regex(value) | op == "glob"; is_string(value)},
	_side(path),
])

# METADATA
# description: A condition on a path alone.
condition_on(path, op) := object.union({"op": op}, _side(path))

# METADATA
# description: A condition that compares two paths.
condition_from(path, op, other) := object.union({"op": op, "from": _side(other)}, _side(path))

_side(path) := {"at": array.slice(tokens, 1, count(tokens))} if {
	tokens := split(path, "/")
	tokens[1] in {"action", "arguments", "context"}
} else := {"readings": [array.slice(tokens, 1, count(tokens))]} if tokens := split(path, "/")

# METADATA
# description: A rule of policy P, with what a case adds.
rule(id, effect, more) := object.union({"policy": "P", "id": id, "effect": effect}, more)

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
