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
# description: The decision on one item.
decide(item) := object.union_n([
	row,
	{
		"effect": _effect[row.code],
		"revision": registry.revision,
		"as_of": registry.as_of,
		"depends_on": [part | some part in depends_on(item, weighed)],
	},
	{"valid_until": bound | bound := rules.valid_until(weighed)},
	{"max_staleness_seconds": bound | bound := registry.max_staleness_seconds},
	{"explanation": _explanation(item, weighed, rows) | input.explain},
]) if {
	weighed := weigh(item)
	rows := array.concat(identity.denials, _item_rows(item, weighed))
	row := rows[0]
}

# METADATA
# description: |
#   The rules that are looked at: none when the identity rows deny already, unless the caller wants all that applies.
weigh(item) := [] if {
	count(identity.denials) > 0
	not input.explain
} else := rules.weigh(item)

# ALLOWED is the only row that allows.
_effect[code] := "DENY" if some code in _denial_codes

_effect["ALLOWED"] := "ALLOW"

_denial_codes := {
	"CONDITION_NOT_MET",
	"DELEGATION_INVALID",
	"DENIED_BY_RULE",
	"IMPERSONATION",
	"NO_MATCHING_RULE",
	"OBLIGATION_UNSUPPORTED",
	"SCOPE_INSUFFICIENT",
	"SUBJECT_NOT_MEMBER",
	"TENANT_MISMATCH",
	"TENANT_SUSPENDED",
	"TENANT_UNKNOWN",
}

# The rows about the item, in the order of the table; there is always one.
_item_rows(item, weighed) := array.concat(denials(item, weighed), [last_row(item, weighed)])

# METADATA
# description: The rows that deny the item whatever the ALLOW rules say.
denials(item, weighed) := array.flatten([
	[denied_by_rule(rule) | some rule in rules.with_verdict(weighed, "DENY", "APPLIES")],
	[denied_by_extension(name, reason) |
		count(identity.denials) == 0
		some name in extensions.names
		extensions.decidable(name, item)
		some reason in extensions.reasons(name, item)
	],
	[row | row := _scope_insufficient(item)],
])

# METADATA
# description: The row that is reached when nothing else denies.
last_row(item, weighed) := by_obligations(allowing) if {
	allowing := rules.with_verdict(weighed, "ALLOW", "APPLIES")
	count(allowing) > 0
} else := condition_not_met(rule, item) if {
	rule := rules.with_verdict(weighed, "ALLOW", "CONDITIONS_FAIL")[0]
} else := no_matching_rule(item)

# METADATA
# description: |
#   ALLOWED by the first of the rules that allow, or OBLIGATION_UNSUPPORTED by the first that demands what the caller cannot do.
by_obligations(allowing) := object.union(_naming(rule), {"code": "OBLIGATION_UNSUPPORTED", "reason": reason}) if {
	rule := [r | some r in allowing; not obligations_accepted(r)][0]
	unsupported := {o.type | some o in rule.obligations} - {type | some type in input.accepts}
	reason := sprintf("the caller does not say that it carries out %s", [concat(", ", unsupported)])
} else := object.union(_naming(rule), {
	"code": "ALLOWED",
	"reason": _reason(rule, "allowed"),
	"obligations": obligations(allowing),
}) if {
	rule := allowing[0]
}

# METADATA
# description: What the caller must do if it goes on, by every rule that allows it, each once.
obligations(allowing) := [o |
	some i, o in all
	every earlier in array.slice(all, 0, i) {
		earlier != o
	}
] if {
	all := [o | some rule in allowing; some o in rule.obligations]
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
denied_by_rule(rule) := object.union(_naming(rule), {"code": "DENIED_BY_RULE", "reason": _reason(rule, "denied")})

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

# SCOPE_INSUFFICIENT, unless the resource needs no scope or the effective scopes grant the access it needs.
_scope_insufficient(item) := {"code": "SCOPE_INSUFFICIENT", "reason": reason} if {
	access := registry.resource(item.resource.type, item.resource.id).access
	granting := {scope | some scope in input.settings.scopes[access]}
	count(granting & identity.effective_scopes) == 0
	reason := sprintf("%s access needs one of the scopes %s; effective are: %s", [
		access,
		concat(", ", granting),
		concat(", ", identity.effective_scopes),
	])
}

# METADATA
# description: The parts of the request that the decision on the item depended on.
depends_on(item, weighed) := rules.depends_on(weighed) | {part |
	count(identity.denials) == 0
	some name in extensions.names
	extensions.decidable(name, item)
	some part in extensions.depends_on(name)
}

_naming(rule) := {"policy_id": rule.policy, "rule_id": rule.id}

_reason(rule, _) := rule.reason

_reason(rule, verb) := sprintf("%s by rule %q of policy %q", [verb, rule.id, rule.policy]) if not rule.reason

_explanation(item, weighed, rows) := {
	"codes": [object.filter(row, ["code", "reason", "policy_id", "rule_id"]) | some row in rows],
	"rules": [rules.explain(w, item) | some w in weighed],
	"roles": [role | some role in identity.roles],
	"effective_scopes": [scope | some scope in identity.effective_scopes],
}
