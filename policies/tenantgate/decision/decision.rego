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
#   The decision on one item; undefined for an item that lacks what the rules look at. A row denies unless it is ALLOWED, which
#   alone says otherwise.
decide(item) := object.union_n([
	{"effect": "DENY", "depends_on": (parts_read | parts_read_by_extensions)},
	row,
	registry.state,
	{"valid_until": min(turns) | turns != []},
	{"explanation": _explanation(item, weighed, rows) | input.explain},
]) if {
	item.action.name
	item.arguments
	weighed := rules.weigh(item)
	rows := array.concat(identity.denials, array.concat(denials(item, weighed), [last_row(item, weighed)]))
	row := rows[0]

	# a later request that differs in other parts only is decided alike
	parts_read := {part | some w in weighed; some part in w.rule.reads}
	parts_read_by_extensions := {part |
		some name in registry.meta.extensions
		identity.looks_at_item
		extensions.decidable(name, item)
		some part in extensions.depends_on(name)
	}

	# the moments to come at which the passing of time alone may change the decision
	turns := [turn | some w in weighed; some key in ["not_before", "not_after"]; turn := w.rule[key]; turn > input.time]
}

# METADATA
# description: The rows that deny the item whatever the ALLOW rules say.
denials(item, weighed) := array.concat(
	array.concat(
		[row | row := _resource_suspended(item)],
		[denied_by_rule(w.rule) | some w in weighed; w.verdict == "APPLIES"; w.rule.effect == "DENY"],
	),
	array.concat(
		[denied_by_extension(name, reason) |
			some name in registry.meta.extensions
			identity.looks_at_item
			extensions.decidable(name, item)
			some reason in extensions.reasons(name, item)
		],
		[row | row := _scope_insufficient(item)],
	),
)

# METADATA
# description: The row that is reached when nothing else denies.
last_row(item, weighed) := by_obligations(allowing) if {
	allowing := [w.rule | some w in weighed; w.verdict == "APPLIES"; w.rule.effect == "ALLOW"]
	allowing != []
} else := condition_not_met(rule, item) if {
	rule := rules.with_verdict(weighed, "ALLOW", "CONDITIONS_FAIL")[0]
} else := no_matching_rule(item)

# METADATA
# description: |
#   ALLOWED by the first of the rules that allow, with the obligations of them all, each once; or OBLIGATION_UNSUPPORTED by the
#   first that demands what the caller cannot do.
by_obligations(allowing) := {
	"effect": "ALLOW",
	"code": "ALLOWED",
	"policy_id": allowing[0].policy,
	"rule_id": allowing[0].id,
	"reason": allowing[0].reason,
	"obligations": [o | some i, o in demanded; not o in array.slice(demanded, 0, i)],
} if {
	demanded := [o | some rule in allowing; some o in rule.obligations]
	{o.type | some o in demanded} - {type | some type in input.accepts} == set()
} else := object.union(_naming(rule), {"code": "OBLIGATION_UNSUPPORTED", "reason": reason}) if {
	rule := [r | some r in allowing; not obligations_accepted(r)][0]
	unsupported := {o.type | some o in rule.obligations} - {type | some type in input.accepts}
	reason := sprintf("the caller does not say that it carries out %s", [concat(", ", unsupported)])
}

# METADATA
# description: The caller says that it can carry out all that the rule demands.
obligations_accepted(rule) if {
	every obligation in rule.obligations {
		obligation.type in input.accepts
	}
}

obligations_accepted(rule) if not rule.obligations

# METADATA
# description: DENIED_BY_RULE, with the rule's own reason.
denied_by_rule(rule) := object.union(_naming(rule), {"code": "DENIED_BY_RULE", "reason": rule.reason})

# METADATA
# description: DENIED_BY_RULE, by an extension.
denied_by_extension(name, reason) := {
	"code": "DENIED_BY_RULE",
	"policy_id": sprintf("custom.%s", [name]),
	"reason": reason,
}

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

# RESOURCE_SUSPENDED, unless the catalogue has nothing against the resource.
_resource_suspended(item) := {"code": "RESOURCE_SUSPENDED", "reason": reason} if {
	registry.resource_suspended(item.resource.type, item.resource.id)
	reason := sprintf("%s %q is suspended", [item.resource.type, item.resource.id])
}

# SCOPE_INSUFFICIENT, unless the resource needs no scope or the effective scopes grant the access it needs.
_scope_insufficient(item) := {"code": "SCOPE_INSUFFICIENT", "reason": reason} if {
	access := registry.resource(item.resource.type, item.resource.id).access
	{scope | some scope in input.settings.scopes[access]; scope in identity.effective_scopes} == set()
	reason := sprintf("%s access needs one of the scopes %s; effective are: %s", [
		access,
		concat(", ", {scope | some scope in input.settings.scopes[access]}),
		concat(", ", identity.effective_scopes),
	])
}

_naming(rule) := {"policy_id": rule.policy, "rule_id": rule.id}

_explanation(item, weighed, rows) := object.union({"weakest_hop": hop | hop := identity.weakest_hop}, {
	"codes": [object.filter(row, ["code", "reason", "policy_id", "rule_id"]) | some row in rows],
	"rules": [rules.explain(w, item) | some w in weighed],
	"principal": input.principal.id,
	"subject": input.subject.id,
	"roles": [role | some role in identity.roles],
	"effective_scopes": [scope | some scope in identity.effective_scopes],
})
