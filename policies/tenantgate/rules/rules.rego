# METADATA
# title: Rules
# description: What becomes of each rule that concerns a resource.
# schemas:
#   - input: schema.input
package tenantgate.rules

import data.tenantgate.conditions
import data.tenantgate.identity
import data.tenantgate.registry

# METADATA
# description: |
#   The rules that concern the item's resource, each with its verdict: NARROWED_OUT when it is about another subject,
#   principal, action, scope or time; APPLIES; CONDITIONS_FAIL; or UNDECIDED when conditions on arguments that are not
#   known yet decide. None when the item is not looked at.
weigh(item) := [[rule, _verdict(rule, item)] |
	identity.looks_at_item
	some rule in registry.rules(item.resource.type, item.resource.id)
]

_verdict(rule, item) := "NARROWED_OUT" if {
	some [name, wanted] in rule[3].narrowing
	not _within(name, wanted, item)
} else := "APPLIES" if {
	not rule[3].conditions[0]
} else := _all_of({_bearing[rule[0]][conditions.outcome(condition, item)] | some condition in rule[3].conditions})

# Deny-safe: what cannot be evaluated keeps an ALLOW rule from applying, and does not keep a DENY rule from it.
_bearing := {
	"ALLOW": {"HOLDS": "HOLDS", "FAILS": "FAILS", "UNEVALUABLE": "FAILS", "UNDECIDED": "UNDECIDED"},
	"DENY": {"HOLDS": "HOLDS", "FAILS": "FAILS", "UNEVALUABLE": "HOLDS", "UNDECIDED": "UNDECIDED"},
}

_all_of(bearings) := "APPLIES" if {
	bearings == {"HOLDS"}
} else := "CONDITIONS_FAIL" if {
	"FAILS" in bearings
} else := "UNDECIDED"

# One row for each narrowing that a rule may carry; the compiler lists those that a rule does carry, with what they ask for.
_within("assignment", policy, _) if policy in identity.membership.policies

_within("actions", actions, item) if item.action.name in actions

_within("subjects", subjects, _) if input.subject.id in subjects.users

_within("subjects", subjects, _) if {
	some role in subjects.roles
	role in identity.roles
}

_within("principals", principals, _) if input.principal.id in principals.ids

_within("principals", principals, _) if {
	some pattern in principals.patterns
	regex.match(pattern, input.principal.id)
}

_within("scopes", scopes, _) if {
	every scope in scopes {
		scope in identity.effective_scopes
	}
}

_within("not_before", moment, _) if moment <= input.time

_within("not_after", moment, _) if input.time < moment

# METADATA
# description: The rules of an effect that came to a verdict, in order.
with_verdict(weighed, effect, verdict) := [rule | some [rule, found] in weighed; found == verdict; rule[0] == effect]

# METADATA
# description: The first condition that keeps an ALLOW rule from applying, in words.
first_failing(rule, item) := [conditions.in_words(condition) |
	some condition in rule[3].conditions
	_bearing.ALLOW[conditions.outcome(condition, item)] == "FAILS"
][0]

# METADATA
# description: The reason that the rule gives, which is the rule itself where its author gave none.
reason([effect, policy, id, rest]) := words if {
	words := rest.reason
} else := sprintf(`%s by rule "%s" of policy "%s"`, [_done[effect], id, policy]) if {
	not regex.match(`["\\]`, concat("", [id, policy]))
} else := sprintf(`%s by rule "%s" of policy "%s"`, [_done[effect], _quotable(id), _quotable(policy)])

# As the compiler quotes what it writes. It is looked for what to quote first, as that is rare, and replacing dear.
_quotable(id) := strings.replace_n({`\`: `\\`, `"`: `\"`}, id)

_done := {"ALLOW": "allowed", "DENY": "denied"}

# METADATA
# description: A weighed rule as the explanation shows it.
explain([[effect, policy, id, rest], verdict], item) := {
	"policy_id": policy,
	"rule_id": id,
	"effect": effect,
	"verdict": verdict,
	"narrowed_by": [narrowing |
		some [narrowing, wanted] in rest.narrowing
		not _within(narrowing, wanted, item)
	],
	"conditions": [conditions.explain(condition, item) | some condition in rest.conditions],
}
