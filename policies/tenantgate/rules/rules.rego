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
weigh(item) := [{"rule": rule, "verdict": _verdict(rule, item)} |
	identity.looks_at_item
	some rule in registry.rules(item.resource.type, item.resource.id)
]

_verdict(rule, item) := "NARROWED_OUT" if {
	some narrowing in rule.narrowing
	not _within(narrowing, rule, item)
} else := "APPLIES" if {
	not rule.conditions
} else := _all_of({_bearing[rule.effect][conditions.outcome(condition, item)] |
	some condition in rule.conditions
})

# Deny-safe: what cannot be evaluated keeps an ALLOW rule from applying, and does not keep a DENY rule from it.
_bearing := {
	"ALLOW": {"HOLDS": "HOLDS", "FAILS": "FAILS", "UNEVALUABLE": "FAILS", "UNDECIDED": "UNDECIDED"},
	"DENY": {"HOLDS": "HOLDS", "FAILS": "FAILS", "UNEVALUABLE": "HOLDS", "UNDECIDED": "UNDECIDED"},
}

_all_of(bearings) := "CONDITIONS_FAIL" if {
	"FAILS" in bearings
} else := "UNDECIDED" if {
	"UNDECIDED" in bearings
} else := "APPLIES"

# One row for each narrowing that a rule may carry; the compiler lists those that a rule does carry.
_within("assignment", rule, _) if rule.policy in identity.membership.policies

_within("actions", rule, item) if item.action.name in rule.actions

_within("subjects", rule, _) if input.subject.id in rule.subjects.users

_within("subjects", rule, _) if {
	some role in rule.subjects.roles
	role in identity.roles
}

_within("principals", rule, _) if input.principal.id in rule.principals.ids

_within("principals", rule, _) if {
	some pattern in rule.principals.patterns
	regex.match(pattern, input.principal.id)
}

_within("scopes", rule, _) if {
	every scope in rule.scopes {
		scope in identity.effective_scopes
	}
}

_within("not_before", rule, _) if rule.not_before <= input.time

_within("not_after", rule, _) if input.time < rule.not_after

# METADATA
# description: The rules of an effect that came to a verdict, in order.
with_verdict(weighed, effect, verdict) := [w.rule | some w in weighed; w.rule.effect == effect; w.verdict == verdict]

# METADATA
# description: The first condition that keeps an ALLOW rule from applying, in words.
first_failing(rule, item) := [conditions.in_words(condition) |
	some condition in rule.conditions
	_bearing.ALLOW[conditions.outcome(condition, item)] == "FAILS"
][0]

# METADATA
# description: A weighed rule as the explanation shows it.
explain(weighed, item) := {
	"policy_id": weighed.rule.policy,
	"rule_id": weighed.rule.id,
	"effect": weighed.rule.effect,
	"verdict": weighed.verdict,
	"narrowed_by": [narrowing |
		some narrowing in weighed.rule.narrowing
		not _within(narrowing, weighed.rule, item)
	],
	"conditions": [conditions.explain(condition, item) | some condition in weighed.rule.conditions],
}
