package tenantgate.rules_test

import data.tenantgate.rules as subject
import data.tenantgate.testing

_holds := testing.condition("/context/yes", "eq", true)

_fails := testing.condition("/context/yes", "eq", false)

_unevaluable := testing.condition("/context/nothing", "eq", true)

_about_yes := {"context": {"yes": true}, "explain": true}

# The verdicts on the rules, as the explanation shows them.
_verdicts(compiled, asked) := [rule.verdict |
	decision := testing.decide_under(compiled, object.union(asked, {"explain": true}))
	some rule in decision.explanation.rules
]

test_narrowing[name][effect] if {
	some name, [narrowing, changes, verdict] in {
		"an action": [{"actions": ["invoke", "read"]}, {}, "APPLIES"],
		"another action": [{"actions": ["read"]}, {}, "NARROWED_OUT"],
		"an action in another case": [{"actions": ["Invoke"]}, {}, "NARROWED_OUT"],
		"an empty action": [{"actions": ["invoke"]}, {"action": {"name": ""}}, "NARROWED_OUT"],
		"an action with a trailing space": [{"actions": ["invoke"]}, {"action": {"name": "invoke "}}, "NARROWED_OUT"],
		"an action that is a star": [{"actions": ["invoke"]}, {"action": {"name": "*"}}, "NARROWED_OUT"],
		"a user": [{"subjects": {"users": ["bob", "alice"]}}, {}, "APPLIES"],
		"another user": [{"subjects": {"users": ["bob"]}}, {}, "NARROWED_OUT"],
		"a user in another case": [{"subjects": {"users": ["Alice"]}}, {}, "NARROWED_OUT"],
		"a user who looks alike": [{"subjects": {"users": ["alice"]}}, {"subject": {"id": "\u0430lice"}}, "NARROWED_OUT"],
		"a role": [{"subjects": {"roles": ["support"]}}, {"subject": {"roles": ["support"]}}, "APPLIES"],
		"another role": [{"subjects": {"roles": ["support"]}}, {"subject": {"roles": ["support-lead"]}}, "NARROWED_OUT"],
		"the second of two roles": [
			{"subjects": {"roles": ["lead", "support"]}},
			{"subject": {"roles": ["support"]}},
			"APPLIES",
		],
		"no role": [{"subjects": {"roles": ["support"]}}, {}, "NARROWED_OUT"],
		"a role that is the user's name": [{"subjects": {"roles": ["alice"]}}, {}, "NARROWED_OUT"],
		"a user or a role, by the user": [{"subjects": {"users": ["alice"], "roles": ["support"]}}, {}, "APPLIES"],
		"a user or a role, by the role": [
			{"subjects": {"users": ["bob"], "roles": ["support"]}},
			{"subject": {"roles": ["support"]}},
			"APPLIES",
		],
		"a user or a role, by both": [
			{"subjects": {"users": ["alice"], "roles": ["support"]}},
			{"subject": {"roles": ["support"]}},
			"APPLIES",
		],
		"a user or a role, by neither": [{"subjects": {"users": ["bob"], "roles": ["support"]}}, {}, "NARROWED_OUT"],
		"a principal": [{"principals": {"ids": ["agent:order-bot"], "patterns": []}}, {}, "APPLIES"],
		"another principal": [{"principals": {"ids": ["agent:report-bot"], "patterns": []}}, {}, "NARROWED_OUT"],
		"a principal with a longer id": [
			{"principals": {"ids": ["agent:order-bot"], "patterns": []}},
			{"principal": {"id": "agent:order-bot-admin"}},
			"NARROWED_OUT",
		],
		"a principal that a glob takes in": [{"principals": {"ids": [], "patterns": [`^(?s:agent:[^:/]*)$`]}}, {}, "APPLIES"],
		"a principal that two globs take in": [
			{"principals": {"ids": [], "patterns": [`^(?s:agent:[^:/]*)$`, `^(?s:.*)$`]}},
			{},
			"APPLIES",
		],
		"a principal that no glob takes in": [
			{"principals": {"ids": [], "patterns": [`^(?s:agent:[^:/]*)$`]}},
			{"principal": {"id": "agent:order:bot"}},
			"NARROWED_OUT",
		],
		"a scope": [{"scopes": ["tools:read"]}, {}, "APPLIES"],
		"all scopes": [{"scopes": ["a", "tools:read"]}, {"scopes": ["tools:read", "a", "b"]}, "APPLIES"],
		"one scope of two": [{"scopes": ["tools:read", "refunds:write"]}, {}, "NARROWED_OUT"],
		"no scope": [{"scopes": ["refunds:write"]}, {"scopes": []}, "NARROWED_OUT"],
		"after its beginning": [{"not_before": 999}, {}, "APPLIES"],
		"at its beginning": [{"not_before": 1000}, {}, "APPLIES"],
		"before its beginning": [{"not_before": 1001}, {}, "NARROWED_OUT"],
		"before its end": [{"not_after": 1001}, {}, "APPLIES"],
		"at its end": [{"not_after": 1000}, {}, "NARROWED_OUT"],
		"after its end": [{"not_after": 999}, {}, "NARROWED_OUT"],
		"within its time": [{"not_before": 1000, "not_after": 1001}, {}, "APPLIES"],
		"all narrowing holds": [
			{"actions": ["invoke"], "subjects": {"users": ["alice"]}, "scopes": ["tools:read"]},
			{},
			"APPLIES",
		],
		"one narrowing does not hold": [
			{"actions": ["invoke"], "subjects": {"users": ["alice"]}, "scopes": ["refunds:write"]},
			{},
			"NARROWED_OUT",
		],
		"none": [{}, {}, "APPLIES"],
	}
	some effect in ["ALLOW", "DENY"]
	rule := testing.rule("r", effect, object.union(narrowing, {"narrowing": object.keys(narrowing)}))
	_verdicts(testing.registry_of([rule]), testing.request_with(changes)) == [verdict]
}

# Not told apart by effect: what does not concern the request does not deny it either.
test_assignment[name] if {
	some name, [membership, subject, verdict] in {
		"assigned": ["REQUIRED", "alice", "APPLIES"],
		"not assigned": ["REQUIRED", "bob", "NARROWED_OUT"],
		"no member": ["REQUIRED", "dave", "NARROWED_OUT"],
		"a suspended member": ["REQUIRED", "carol", "NARROWED_OUT"],
		"assigned, where memberships are optional": ["OPTIONAL", "alice", "APPLIES"],
		"a suspended member, where memberships are optional": ["OPTIONAL", "carol", "NARROWED_OUT"],
		"no member, where memberships are optional": ["OPTIONAL", "dave", "NARROWED_OUT"],
	}
	_verdicts(
		testing.registry_with("acme", {"terms": {"membership": membership}}),
		testing.request_of_acme({"subject": {"id": subject}, "resource": {"id": "agent:tool:order-cancel"}}),
	) == [verdict]
}

test_roles_of_a_membership[name] if {
	some name, [subject, verdict] in {
		"a member": ["alice", "APPLIES"],
		"a suspended member": ["carol", "NARROWED_OUT"],
		"a member with another role": ["bob", "NARROWED_OUT"],
		"no member": ["dave", "NARROWED_OUT"],
	}
	compiled := testing.registry_with("acme", {
		"terms": {"membership": "OPTIONAL"},
		"members": {"bob": {"roles": ["billing"]}},
		"rules": [testing.rule("r", "ALLOW", {"narrowing": ["subjects"], "subjects": {"roles": ["lead", "support"]}})],
		"exact": {"TOOL": {"agent:tool:order-lookup": [0]}},
	})
	_verdicts(compiled, testing.request_of_acme({"subject": {"id": subject}})) == [verdict]
}

# Kleene: one condition that fails decides, whatever the others; what cannot be evaluated counts against the caller.
test_conditions[name][effect] if {
	some name, [conditions, allow, deny] in {
		"one holds": [[_holds], "APPLIES", "APPLIES"],
		"one fails": [[_fails], "CONDITIONS_FAIL", "CONDITIONS_FAIL"],
		"one cannot be evaluated": [[_unevaluable], "CONDITIONS_FAIL", "APPLIES"],
		"all hold": [[_holds, _holds], "APPLIES", "APPLIES"],
		"one holds, one fails": [[_holds, _fails], "CONDITIONS_FAIL", "CONDITIONS_FAIL"],
		"one fails, one holds": [[_fails, _holds], "CONDITIONS_FAIL", "CONDITIONS_FAIL"],
		"one cannot be evaluated, one holds": [[_unevaluable, _holds], "CONDITIONS_FAIL", "APPLIES"],
		"one holds, one cannot be evaluated": [[_holds, _unevaluable], "CONDITIONS_FAIL", "APPLIES"],
		"one cannot be evaluated, one fails": [[_unevaluable, _fails], "CONDITIONS_FAIL", "CONDITIONS_FAIL"],
		"one fails, one cannot be evaluated": [[_fails, _unevaluable], "CONDITIONS_FAIL", "CONDITIONS_FAIL"],
		"none can be evaluated": [[_unevaluable, _unevaluable], "CONDITIONS_FAIL", "APPLIES"],
	}
	some effect, verdict in {"ALLOW": allow, "DENY": deny}
	rule := testing.rule("r", effect, {"conditions": conditions})
	_verdicts(testing.registry_of([rule]), testing.request_with(_about_yes)) == [verdict]
}

test_narrowing_comes_before_conditions if {
	rule := testing.rule("r", "DENY", {"narrowing": ["actions"], "actions": ["read"], "conditions": [_unevaluable]})
	_verdicts(testing.registry_of([rule]), testing.request_with(_about_yes)) == ["NARROWED_OUT"]
}

test_explains_a_rule[name] if {
	some name, [more, explanation] in {
		"bare": [{}, {"verdict": "APPLIES", "narrowed_by": [], "conditions": []}],
		"narrowed out by two": [
			{
				"narrowing": ["scopes", "actions", "not_before"],
				"scopes": ["x"],
				"actions": ["invoke"],
				"not_before": 2000,
			},
			{"verdict": "NARROWED_OUT", "narrowed_by": ["scopes", "not_before"], "conditions": []},
		],
		"with conditions": [{"conditions": [_holds, _fails]}, {
			"verdict": "CONDITIONS_FAIL",
			"narrowed_by": [],
			"conditions": [
				{"path": "/context/yes", "op": "eq", "outcome": "HOLDS", "expected": true, "actual": true},
				{"path": "/context/yes", "op": "eq", "outcome": "FAILS", "expected": false, "actual": true},
			],
		}],
	}
	decision := testing.decide([testing.rule("r", "ALLOW", more)], _about_yes)
	named := {"policy_id": "P", "rule_id": "r", "effect": "ALLOW"}
	decision.explanation.rules == [object.union(named, explanation)]
}

test_depends_on[name] if {
	some name, [rules, parts] in {
		"nothing, without rules": [[], []],
		"nothing, with a bare rule": [[testing.rule("r", "ALLOW", {})], []],
		"what one rule reads": [[testing.rule("r", "ALLOW", {"reads": ["arguments"]})], ["arguments"]],
		"what all rules read, each once": [
			[
				testing.rule("a", "ALLOW", {"reads": ["context", "subject.properties"]}),
				testing.rule("b", "DENY", {"conditions": [_fails], "reads": ["context"]}),
				testing.rule("c", "ALLOW", {"conditions": [_fails], "reads": ["arguments"]}),
			],
			["arguments", "context", "subject.properties"],
		],
	}
	testing.decide(rules, {}).depends_on == {part | some part in parts}
}

# One who is turned away at the door gives the rules nothing to depend on, unless all that applies is wanted.
test_depends_on_of_a_refusal[name] if {
	some name, [explain, parts] in {"plain": [false, []], "explained": [true, ["arguments"]]}
	rules := [testing.rule("r", "ALLOW", {"reads": ["arguments"]})]
	testing.decide(rules, {"explain": explain, "principal": {"id": ""}}).depends_on == {part | some part in parts}
}

test_valid_until[name] if {
	some name, [rules, bound] in {
		"a beginning to come": [[{"not_before": 2000}], 2000],
		"an end to come": [[{"not_after": 3000}], 3000],
		"the next of two rules": [[{"not_after": 3000}, {"not_before": 2000}], 2000],
		"the next of one rule": [[{"not_before": 2000, "not_after": 3000}], 2000],
		"its end, once begun": [[{"not_before": 1000, "not_after": 3000}], 3000],
		"its end, where conditions fail now": [[{"not_after": 3000, "conditions": [_fails]}], 3000],
		"its end, where it is narrowed out by more than time": [[{"not_after": 3000, "actions": ["read"]}], 3000],
	}
	testing.decide(_timed(rules), {}).valid_until == bound
}

test_valid_without_end[name] if {
	some name, rules in {
		"no rules": [],
		"no time": [{}],
		"a beginning now": [{"not_before": 1000}],
		"an end now": [{"not_after": 1000}],
		"a time past": [{"not_before": 10, "not_after": 20}],
	}
	not "valid_until" in object.keys(testing.decide(_timed(rules), {}))
}

_timed(rules) := [testing.rule(sprintf("r%d", [i]), "ALLOW", object.union(more, {"narrowing": narrowing})) |
	some i, more in rules
	narrowing := [key | some key in ["actions", "not_after", "not_before"]; more[key]]
]

test_the_reason_of_a_rule_that_gives_none_is_its_id if {
	subject.reason(["DENY", "P", "no-refunds", {"reason": "not today"}]) == "not today"
	subject.reason(["DENY", "P", "no-refunds", {}]) == "no-refunds"
}
