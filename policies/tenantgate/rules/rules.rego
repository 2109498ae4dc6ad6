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
weigh(item) := among(numbers, item) if {
	identity.looks_at_item
	numbers := registry.numbers(item.resource.type, item.resource.id)
} else := []

# METADATA
# description: The rules with these numbers, each with its verdict.
among(numbers, item) := [[rule, _verdict(rule, item)] |
	some number in split(numbers, " ")
	rule := registry.rule(number)
]

_verdict(rule, item) := "NARROWED_OUT" if {
	some [name, wanted] in rule[3].narrowing
	not _within(name, wanted, item)
} else := "APPLIES" if {
	not rule[3].conditions[0]
} else := _all_of(rule[0], {conditions.answer(condition, item) | some condition in rule[3].conditions})

_all_of(effect, outcomes) := "APPLIES" if {
	outcomes == {true}
} else := "APPLIES" if {
	outcomes - _holding[effect] == set()
} else := "CONDITIONS_FAIL" if {
	outcomes - _holding[effect] != {"UNDECIDED"}
} else := "UNDECIDED"

# Deny-safe: what cannot be evaluated keeps an ALLOW rule from applying, and does not keep a DENY rule from it.
_holding := {"ALLOW": {true}, "DENY": {true, "UNEVALUABLE"}}

# One row for each narrowing that a rule may carry; the compiler lists those that a rule does carry, with what they ask for.
_within("assignment", policy, _) if policy in identity.membership.policies

_within("actions", actions, item) if item.action.name in actions

_within("subjects", subjects, _) if input.subject.id in subjects.users

_within("subjects", subjects, _) if {
	some role in subjects.roles
	role in input.subject.roles
}

_within("subjects", subjects, _) if {
	some role in subjects.roles
	role in identity.membership.roles
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
	conditions.answer(condition, item) in {false, "UNEVALUABLE"}
][0]

# METADATA
# description: The reason that the rule gives. The compiler gives one to each; no rule is dropped where there is none.
reason([_, _, id, rest]) := object.get(rest, "reason", id)

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
