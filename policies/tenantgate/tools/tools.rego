# METADATA
# title: Tools
# description: |
#   Which tools of a list may be called at all: the decision with the arguments left open. DENIED and ALLOWED hold for all
#   arguments; for CONDITIONAL, the conditions that decide are given.
# schemas:
#   - input: schema.input
package tenantgate.tools

import data.tenantgate.conditions
import data.tenantgate.decision as table
import data.tenantgate.extensions
import data.tenantgate.identity
import data.tenantgate.registry
import data.tenantgate.rules

# METADATA
# description: |
#   The answer for each tool, in the order of the tools, the state of the registry that they were made under, and what they
#   depend on, all together, as a decision says it; undefined where one of the tools is malformed.
# entrypoint: true
listing := object.union_n([
	registry.state,
	{"tools": answers, "depends_on": (table.parts_read(weighed) | table.parts_read_by_extensions(input.items))},
	{"valid_until": min(moments) | moments != []},
]) if {
	identity.denials
	tools := [_answered(item) |
		some item in input.items
		item.action.name
	]
	count(tools) == count(input.items)
	answers := [answer | answer := tools[_][0]]
	weighed := [w | w := tools[_][1][_]]
	moments := table.turns(weighed)
}

# The answer for a tool, and the rules that were weighed for it. Where nobody is refused and the catalogue lets the tool be called,
# what is listed of its rules may be enough: none concerns it, or all of them allow whatever is asked.
_answered(item) := [_seen(item, listed), []] if {
	table.nobody_is_refused
	key := concat("\t", [item.resource.type, item.resource.id])
	table.open(key)
	listed := registry.concerning(item.resource.type, key)
} else := [_answer(item, weighed), weighed] if {
	weighed := rules.weigh(item)
}

_seen(item, []) := object.union({"state": "DENIED"}, table.no_matching_rule(item))

_seen(_, [_, policy, id, reason]) := {
	"state": "ALLOWED",
	"code": "ALLOWED",
	"policy_id": policy,
	"rule_id": id,
	"reason": reason,
	"obligations": [],
}

_answer(item, weighed) := object.union({"state": "DENIED"}, row) if {
	row := _denial(item, weighed)
} else := object.union({"state": "ALLOWED"}, object.remove(row, ["effect"])) if {
	_disputing(weighed) == []
	_open_extensions(item) == []
	row := table.last_row(item, weighed)
	row.code == "ALLOWED"
} else := {
	"state": "CONDITIONAL",
	"residual": [_residual(rule, item) | some [rule, "UNDECIDED"] in weighed],
	"extensions": _open_extensions(item),
}

# The first row that denies for all arguments. Rules that allow for all arguments count in any case; where there are none, one
# that may allow must be among the rest.
_denial(item, weighed) := row if {
	row := table.denial(item, weighed)
} else := row if {
	always := rules.with_verdict(weighed, "ALLOW", "APPLIES")
	count(always) > 0
	row := table.by_obligations(always)
	row.code != "ALLOWED"
} else := table.last_row(item, weighed) if {
	count(rules.with_verdict(weighed, "ALLOW", "APPLIES")) == 0
	count(rules.with_verdict(weighed, "ALLOW", "UNDECIDED")) == 0
} else := table.by_obligations(perhaps) if {
	count(rules.with_verdict(weighed, "ALLOW", "APPLIES")) == 0
	perhaps := rules.with_verdict(weighed, "ALLOW", "UNDECIDED")
	every rule in perhaps {
		not table.obligations_accepted(rule)
	}
}

# The rules that may turn an ALLOW into a DENY, depending on the arguments.
_disputing(weighed) := [rule | some [rule, "UNDECIDED"] in weighed; _disputes(rule)]

_disputes(rule) if rule[0] == "DENY"

_disputes(rule) if not table.obligations_accepted(rule)

_open_extensions(item) := [name | some name in registry.meta.extensions; not extensions.decidable(name, item)]

_residual([effect, policy, id, rest], item) := {
	"policy_id": policy,
	"rule_id": id,
	"effect": effect,
	"conditions": [conditions.explain(condition, item) |
		some condition in rest.conditions
		conditions.on_arguments(condition)
	],
}
