package tenantgate.tools_test

import data.tenantgate.decision as table
import data.tenantgate.testing
import data.tenantgate.tools

_on_amount := testing.condition("/arguments/amount", "lte", 500)

_never := testing.condition_on("/context/x", "exists")

_always := testing.condition_on("/context/x", "absent")

_rule(effect, more) := testing.rule("r", effect, more)

_allow := _rule("ALLOW", {})

_listing(compiled, asked) := listing if {
	listing := tools.listing with data.registry.base as compiled with input as asked
}

_answer(rules, changes) := answer if {
	[answer] = _listing(testing.registry_of(rules), testing.request_about([testing.item_with({})], changes)).tools
}

test_denied_whatever_the_arguments[name] if {
	some name, [code, rules, changes] in {
		"by identity": ["TENANT_MISMATCH", [_allow], {"tenant": {"named": ["acme"]}}],
		"by a rule": ["DENIED_BY_RULE", [_allow, _rule("DENY", {})], {}],
		"by a rule whose conditions are on other things": [
			"DENIED_BY_RULE",
			[_allow, _rule("DENY", {"conditions": [_always]})],
			{},
		],
		"by scopes": ["SCOPE_INSUFFICIENT", [_allow], {"scopes": []}],
		"by scopes, whatever the conditions": ["SCOPE_INSUFFICIENT", [_rule("ALLOW", {"conditions": [_on_amount]})], {"scopes": []}],
		"by default": ["NO_MATCHING_RULE", [], {}],
		"by default, beside a DENY rule on arguments": [
			"NO_MATCHING_RULE",
			[_rule("DENY", {"conditions": [_on_amount]})],
			{},
		],
		"by a condition on other things": ["CONDITION_NOT_MET", [_rule("ALLOW", {"conditions": [_never]})], {}],
		"by a condition on other things, beside one on arguments": [
			"CONDITION_NOT_MET",
			[_rule("ALLOW", {"conditions": [_on_amount, _never]})],
			{},
		],
		"by an obligation": ["OBLIGATION_UNSUPPORTED", [_rule("ALLOW", {"obligations": [{"type": "LOG"}]})], {}],
		"by an obligation, beside a rule on arguments": [
			"OBLIGATION_UNSUPPORTED",
			[_rule("ALLOW", {"obligations": [{"type": "LOG"}]}), _rule("ALLOW", {"conditions": [_on_amount]})],
			{},
		],
		"by an obligation of each rule that may allow": [
			"OBLIGATION_UNSUPPORTED",
			[_rule("ALLOW", {"conditions": [_on_amount], "obligations": [{"type": "LOG"}]})],
			{},
		],
	}
	testing.has(_answer(rules, changes), {"state": "DENIED", "code": code})
}

# Those on arguments may yet hold.
test_the_condition_not_met_is_on_other_things if {
	answer := _answer([_rule("ALLOW", {"conditions": [_on_amount, _never]})], {})
	answer.reason == "condition not met: /context/x exists"
}

test_allowed_whatever_the_arguments[name] if {
	some name, [rules, changes, wanted] in {
		"by a bare rule": [[_allow], {}, {"code": "ALLOWED", "rule_id": "r", "policy_id": "P", "obligations": []}],
		"with obligations that the caller can carry out": [
			[_rule("ALLOW", {"obligations": [{"type": "LOG"}]})],
			{"accepts": ["LOG"]},
			{"code": "ALLOWED", "obligations": [{"type": "LOG"}]},
		],
		"by a condition on other things": [[_rule("ALLOW", {"conditions": [_always]})], {}, {"code": "ALLOWED"}],
		"beside a rule that allows for some arguments": [
			[_rule("ALLOW", {"conditions": [_on_amount]}), testing.rule("bare", "ALLOW", {})],
			{},
			{"code": "ALLOWED", "rule_id": "bare"},
		],
		"beside one whose obligations, for some arguments, the caller can carry out": [
			[_allow, _rule("ALLOW", {"conditions": [_on_amount], "obligations": [{"type": "LOG"}]})],
			{"accepts": ["LOG"]},
			{"code": "ALLOWED"},
		],
		"beside a DENY rule that never applies": [
			[_allow, _rule("DENY", {"conditions": [_on_amount, _never]})],
			{},
			{"code": "ALLOWED"},
		],
		"beside a DENY rule that is about another action": [
			[_allow, _rule("DENY", {"narrowing": ["actions"], "actions": ["read"], "conditions": [_on_amount]})],
			{},
			{"code": "ALLOWED"},
		],
	}
	testing.has(_answer(rules, changes), object.union({"state": "ALLOWED"}, wanted))
}

_small := {
	"path": "/arguments/amount",
	"op": "lte",
	"expected": 500,
	"outcome": "UNDECIDED",
}

# Only the conditions on arguments are left to say.
test_conditional_on_the_arguments[name] if {
	some name, [rules, residual] in {
		"a rule that allows for some": [[_rule("ALLOW", {"conditions": [_on_amount]})], [{"effect": "ALLOW"}]],
		"a rule that denies for some": [
			[_allow, _rule("DENY", {"conditions": [_on_amount]})],
			[{"effect": "DENY"}],
		],
		"a rule that denies for some, if other things cannot be evaluated": [
			[_allow, _rule("DENY", {"conditions": [_on_amount, testing.condition("/context/x", "eq", 1)]})],
			[{"effect": "DENY"}],
		],
		"a rule that allows and one that denies": [
			[_rule("ALLOW", {"conditions": [_on_amount, _always]}), _rule("DENY", {"conditions": [_on_amount]})],
			[{"effect": "ALLOW"}, {"effect": "DENY"}],
		],
		"an obligation, for some, that the caller cannot carry out": [
			[_allow, _rule("ALLOW", {"conditions": [_on_amount], "obligations": [{"type": "LOG"}]})],
			[{"effect": "ALLOW"}],
		],
		"an obligation of one of the rules that may allow": [
			[
				_rule("ALLOW", {"conditions": [_on_amount], "obligations": [{"type": "LOG"}]}),
				_rule("ALLOW", {"conditions": [_on_amount]}),
			],
			[{"effect": "ALLOW"}, {"effect": "ALLOW"}],
		],
	}
	named := {"policy_id": "P", "rule_id": "r"}
	_answer(rules, {}) == {
		"state": "CONDITIONAL",
		"residual": [object.union_n([named, r, {"conditions": [_small]}]) | some r in residual],
		"extensions": [],
	}
}

test_residual_names_the_other_path if {
	rule := _rule("ALLOW", {"conditions": [testing.condition_from("/arguments/ownerId", "eq", "/subject/id")]})
	_answer([rule], {}).residual[0].conditions == [{
		"path": "/arguments/ownerId",
		"op": "eq",
		"outcome": "UNDECIDED",
		"expected": "alice",
		"expected_from": "/subject/id",
	}]
}

# Where the arguments are known, the answer is the decision's.
test_known_arguments[state] if {
	some state, amount in {"ALLOWED": 500, "DENIED": 501}
	rules := [_rule("ALLOW", {"conditions": [_on_amount]})]
	items := [testing.item_with({"arguments": {"amount": amount}})]
	[answer] = _listing(testing.registry_of(rules), testing.request_about(items, {})).tools
	answer.state == state
}

test_order_of_the_tools if {
	items := [object.union(testing.item_with({}), {"resource": {"id": id}}) |
		some id in ["agent:tool:admin-refund", "agent:tool:order-lookup", "agent:tool:none"]
	]
	listing := _listing(testing.registry, testing.request_about(items, {"tenant": {"id": "acme"}}))
	[tool.state | some tool in listing.tools] == ["DENIED", "ALLOWED", "DENIED"]
}

test_what_a_listing_carries[tenant] if {
	some tenant, bound in {"acme": {"max_staleness_seconds": 900}, "globex": {}}
	listing := _listing(testing.registry, testing.request_about([], {"tenant": {"id": tenant}}))
	listing == object.union(
		{"revision": "20260102T030405Z-0123456789ab", "as_of": 1767323045000000, "tools": [], "depends_on": set()},
		bound,
	)
}

_another := testing.rule("other", "ALLOW", {})

_without_rules := testing.item_with({"resource": {"id": "agent:tool:none"}})

test_a_listing_depends_on_what_all_its_tools_depend_on[name] if {
	on_context := {"reads": ["context"], "conditions": [_always]}
	some name, [rules, custom, parts] in {
		"on nothing": [[_allow], {}, set()],
		"on what one rule reads": [[_rule("ALLOW", on_context), _another], {}, {"context"}],
		"on what a rule reads that is narrowed out": [
			[_rule("ALLOW", object.union(on_context, {"narrowing": ["actions"], "actions": ["read"]}))],
			{},
			{"context"},
		],
		"on what two rules read": [
			[_rule("ALLOW", on_context), _rule("DENY", {"reads": ["arguments"], "conditions": [_on_amount]})],
			{},
			{"arguments", "context"},
		],
		"on what an extension reads": [[_allow], {"deny": set(), "depends_on": ["context"]}, {"context"}],
		"not on what one reads that cannot be asked": [[_allow], {"deny": set(), "depends_on": ["arguments"]}, set()],
	}
	names := [extension | some extension in ["x"]; custom != {}]
	compiled := object.union(testing.registry_of(rules), {"meta": {"extensions": names}})
	listing := tools.listing with data.registry.base as compiled
		with data.custom as {"x": custom}
		with input as testing.request_about([_without_rules, testing.item_with({})], {})
	listing.depends_on == parts
}

test_a_listing_is_valid_until_time_may_change_one_of_its_tools[name] if {
	some name, [rules, bounds] in {
		"no time": [[_allow], []],
		"a time past": [[_rule("ALLOW", {"narrowing": ["not_after"], "not_after": 1000})], []],
		"an end": [[_rule("ALLOW", {"narrowing": ["not_after"], "not_after": 3000})], [3000]],
		"the next of two": [
			[
				_rule("ALLOW", {"narrowing": ["not_after"], "not_after": 3000}),
				_rule("DENY", {"narrowing": ["not_before"], "not_before": 2000}),
			],
			[2000],
		],
	}
	listing := _listing(testing.registry_of(rules), testing.request_about([_without_rules, testing.item_with({})], {}))
	[bound | bound := listing.valid_until] == bounds
}

test_no_listing[name] if {
	some name, asked in {
		"of a malformed request": json.remove(testing.request_about([testing.item_with({})], {}), ["/principal"]),
		"with a malformed item": testing.request_about([json.remove(testing.item_with({}), ["/action"])], {}),
	}
	not _listing(testing.registry_of([_allow]), asked)
}

# What is listed of a tool's rules is enough for the answer, which is the same as if they were weighed.
test_as_the_decision_on_any_arguments[name] if {
	some name, [id, changes, state] in {
		"a rule": ["t:one", {}, "ALLOWED"],
		"no rule": ["t:none", {}, "DENIED"],
		"an own entry that is suspended": ["t:own", {}, "DENIED"],
		"a shared entry that is suspended": ["t:off", {}, "DENIED"],
		"a shared entry that asks for more": ["t:write", {}, "DENIED"],
		"no entry": ["t:loose", {}, "ALLOWED"],
		"another tenant named": ["t:one", {"tenant": {"named": ["acme"]}}, "DENIED"],
	}
	item := testing.item_with({"resource": {"type": "TOOL", "id": id}})
	asked := testing.request_about([item], changes)
	[answer] := _listing(_catalogued, asked).tools
	decision := table.judge(object.union(item, {"arguments": {}})) with data.registry.base as _catalogued with input as asked
	object.remove(answer, ["state"]) == object.filter(decision, object.keys(object.remove(answer, ["state"])))
	[answer.state, answer.code] == [state, decision.code]
}

test_an_extension_is_heard_on_a_tool_that_a_rule_allows if {
	compiled := object.union(_catalogued, {"meta": {"extensions": ["x"]}})
	item := testing.item_with({"resource": {"type": "TOOL", "id": "t:one"}})
	[answer] := tools.listing.tools with data.registry.base as compiled
		with input as testing.request_about([item], {})
		with data.custom as {"x": {"deny": {"no"}, "depends_on": []}}
	answer.code == "DENIED_BY_RULE"
}

_catalogued := object.union(
	testing.registry_with("globex", {
		"rules": [_allow],
		"exact": {"TOOL": {id: [0] | some id in ["t:one", "t:own", "t:off", "t:write", "t:loose"]}},
		"resources": {"TOOL": {"t:own": {"status": "SUSPENDED"}}},
	}),
	{"shared": {"resources": testing.catalogue({"TOOL": {
		"t:one": {"access": "READ"},
		"t:none": {"access": "READ"},
		"t:own": {"access": "READ"},
		"t:off": {"access": "READ", "status": "SUSPENDED"},
		"t:write": {"access": "WRITE"},
	}})}},
)
