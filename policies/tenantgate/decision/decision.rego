# METADATA
# title: Decision
# description: |
#   The decision table: the first row that applies gives the code. The rows about identity come first (package identity); the rows
#   here are about the item, which is a resource, an action, arguments and context.
# schemas:
#   - input: schema.input
package tenantgate.decision

import data.tenantgate.extensions
import data.tenantgate.identity
import data.tenantgate.registry
import data.tenantgate.rules

# METADATA
# description: |
#   The decision on one item; undefined for an item that lacks what the rules look at. What is asked most is seen at a glance: nobody is
#   refused, the shared catalogue alone speaks of the tool, and the scopes grant the access to it, so that the rules alone decide. The
#   answer is the same as if it were judged.
decide(item) := object.union({"effect": "DENY", "depends_on": parts, "revision": revision, "as_of": as_of}, row) if {
	input.explain == false
	item.action.name
	item.arguments
	held := identity.direct_scopes
	[revision, as_of, []] = registry.reflected
	key := concat("\t", [item.resource.type, item.resource.id])
	access := registry.catalogue[key]
	access in {"READ", "WRITE"}
	tenant := registry.tenant
	not tenant.terms.max_staleness_seconds
	not tenant.resources[key]
	[row, parts] := _by_rules(item, registry.concerning(item.resource.type, key))
	some scope in input.settings.scopes[access]
	input.scopes[_] == scope
	held[_] == scope
} else := judge(item)

# What the rules say where nothing else denies, and the parts of the request that they read; undefined where the time may turn it.
_by_rules(item, []) := [no_matching_rule(item), set()]

_by_rules(_, [_, policy, id, reason]) := [_allowed(policy, id, reason, []), set()]

_by_rules(item, [numbers]) := [_first_row_of_rules(item, weighed), parts_read(weighed)] if {
	weighed := rules.among(numbers, item)
	turns(weighed) == []
}

# METADATA
# description: The decision on one item by the whole table.
judge(item) := object.union_n([
	{"effect": "DENY", "depends_on": (parts_read(weighed) | parts_read_by_extensions([item]))},
	row,
	registry.state,
	{"valid_until": min(moments) | not moments == []},
	{"explanation": _explanation(item, weighed) | input.explain},
]) if {
	identity.denials
	item.action.name
	item.arguments
	weighed := rules.weigh(item)
	row := first_row(item, weighed)
	moments := turns(weighed)
}

# METADATA
# description: |
#   The parts of the request that the rules read. With those that the extensions read, the answer depends on them alone: a later
#   request that differs in others only is answered alike.
parts_read(weighed) := {part | part := weighed[_][0][3].reads[_]}

# METADATA
# description: The parts of the request that the extensions read which are asked about some item.
parts_read_by_extensions(about) := {part |
	some name in registry.meta.extensions
	identity.looks_at_item
	some item in about
	extensions.decidable(name, item)
	some part in extensions.depends_on(name)
}

# METADATA
# description: The moments to come at which the passing of time alone may change the answer.
turns(weighed) := [turn |
	[name, turn] := weighed[_][0][3].narrowing[_]
	name in {"not_before", "not_after"}
	turn > input.time
]

# METADATA
# description: The first row that applies. A row denies unless it is ALLOWED, which alone says otherwise.
first_row(item, weighed) := _first_row_of_rules(item, weighed) if {
	nobody_is_refused
	open(concat("\t", [item.resource.type, item.resource.id]))
} else := row if {
	row := denial(item, weighed)
} else := last_row(item, weighed)

# METADATA
# description: Neither the rows about identity nor extensions deny anything.
nobody_is_refused if {
	identity.denials == []
	registry.meta.extensions == []
}

_first_row_of_rules(item, weighed) := _allowed(policy, id, rest.reason, []) if {
	[[["ALLOW", policy, id, rest], "APPLIES"]] = weighed
	not rest.obligations
} else := _denied_by_rule(rule) if {
	rule := [r | some [r, "APPLIES"] in weighed; r[0] == "DENY"][0]
} else := last_row(item, weighed)

# METADATA
# description: The first row that denies the item whatever the ALLOW rules say; undefined where none does.
denial(item, weighed) := row if {
	row := identity.denials[0]
} else := row if {
	row := _resource_suspended(item)
} else := _denied_by_rule(rule) if {
	rule := rules.with_verdict(weighed, "DENY", "APPLIES")[0]
} else := row if {
	row := _denied_by_extensions(item)[0]
} else := _scope_insufficient(item)

# The rows that deny the item whatever the ALLOW rules say.
_denials(item, weighed) := array.flatten([
	[row | row := _resource_suspended(item)],
	[_denied_by_rule(rule) | some rule in rules.with_verdict(weighed, "DENY", "APPLIES")],
	_denied_by_extensions(item),
	[row | row := _scope_insufficient(item)],
])

# METADATA
# description: |
#   The shared catalogue alone speaks of the resource with a key, and of nothing but an access that the scopes grant.
open(key) if {
	_granted[registry.catalogue[key]]
	not registry.tenant.resources[key]
}

_granted := {access |
	some access in ["READ", "WRITE"]
	some scope in input.settings.scopes[access]
	identity.effective_scopes[scope]
}

# METADATA
# description: The row that is reached when nothing else denies.
last_row(item, weighed) := no_matching_rule(item) if {
	{verdict | verdict := weighed[_][1]} - {"NARROWED_OUT"} == set()
} else := by_obligations(allowing) if {
	allowing := rules.with_verdict(weighed, "ALLOW", "APPLIES")
	allowing[0]
} else := condition_not_met(rule, item) if {
	rule := rules.with_verdict(weighed, "ALLOW", "CONDITIONS_FAIL")[0]
} else := no_matching_rule(item)

# METADATA
# description: |
#   ALLOWED by the first of the rules that allow, with the obligations of them all, each once; or OBLIGATION_UNSUPPORTED by the
#   first that demands what the caller cannot do.
by_obligations(allowing) := _allowed_by(allowing[0], []) if {
	[rule | some rule in allowing; rule[3].obligations] == []
} else := _allowed_by(allowing[0], [o | some i, o in demanded; not o in array.slice(demanded, 0, i)]) if {
	demanded := [o | some [_, _, _, rest] in allowing; some o in rest.obligations]
	{o.type | some o in demanded} - {type | some type in input.accepts} == set()
} else := object.union(_naming(rule), {"code": "OBLIGATION_UNSUPPORTED", "reason": reason}) if {
	rule := [r | some r in allowing; not obligations_accepted(r)][0]
	unsupported := {o.type | some o in rule[3].obligations} - {type | some type in input.accepts}
	reason := sprintf("the caller does not say that it carries out %s", [concat(", ", unsupported)])
}

_allowed_by(rule, obligations) := _allowed(rule[1], rule[2], rules.reason(rule), obligations)

_allowed(policy, id, reason, obligations) := {
	"effect": "ALLOW",
	"code": "ALLOWED",
	"policy_id": policy,
	"rule_id": id,
	"reason": reason,
	"obligations": obligations,
}

# METADATA
# description: The caller says that it can carry out all that the rule demands.
obligations_accepted(rule) if {
	every obligation in rule[3].obligations {
		obligation.type in input.accepts
	}
}

obligations_accepted(rule) if not rule[3].obligations

# METADATA
# description: NO_MATCHING_RULE, the default.
no_matching_rule(item) := {"code": "NO_MATCHING_RULE", "reason": reason} if {
	reason := sprintf("no rule allows %s on %s %q", [item.action.name, item.resource.type, item.resource.id])
}

# METADATA
# description: CONDITION_NOT_MET, by the first rule that would allow it if its conditions held.
condition_not_met(rule, item) := object.union(_naming(rule), {"code": "CONDITION_NOT_MET", "reason": reason}) if {
	reason := sprintf("condition not met: %s", [rules.first_failing(rule, item)])
}

_resource_suspended(item) := {"code": "RESOURCE_SUSPENDED", "reason": reason} if {
	registry.resource_suspended(item.resource.type, item.resource.id)
	reason := sprintf("%s %q is suspended", [item.resource.type, item.resource.id])
}

_denied_by_rule(rule) := object.union(_naming(rule), {"code": "DENIED_BY_RULE", "reason": rules.reason(rule)})

_denied_by_extensions(item) := [row |
	some name in registry.meta.extensions
	identity.looks_at_item
	extensions.decidable(name, item)
	some reason in extensions.reasons(name, item)
	row := {"code": "DENIED_BY_RULE", "policy_id": sprintf("custom.%s", [name]), "reason": reason}
]

# SCOPE_INSUFFICIENT, unless the resource needs no scope or the effective scopes grant the access it needs.
_scope_insufficient(item) := {"code": "SCOPE_INSUFFICIENT", "reason": reason} if {
	access := registry.entries(item.resource.type, item.resource.id)[0][0]
	not access == ""
	[scope | some scope in input.settings.scopes[access]; scope in identity.effective_scopes] == []
	reason := sprintf("%s access needs one of the scopes %s; effective are: %s", [
		access,
		concat(", ", {scope | some scope in input.settings.scopes[access]}),
		concat(", ", identity.effective_scopes),
	])
}

_naming([_, policy, id, _]) := {"policy_id": policy, "rule_id": id}

_explanation(item, weighed) := object.union({"weakest_hop": hop | hop := identity.weakest_hop}, {
	"codes": [object.filter(row, ["code", "reason", "policy_id", "rule_id"]) | some row in rows],
	"rules": [rules.explain(w, item) | some w in weighed],
	"principal": input.principal.id,
	"subject": input.subject.id,
	"roles": [role | some role in identity.roles],
	"effective_scopes": [scope | some scope in identity.effective_scopes],
}) if {
	rows := array.flatten([identity.denials, _denials(item, weighed), last_row(item, weighed)])
}
