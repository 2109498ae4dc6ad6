package tenantgate.decision_test

import data.tenantgate.testing

_allow := testing.rule("allow", "ALLOW", {})

_deny := testing.rule("deny", "DENY", {"reason": "not today"})

_if_small := testing.rule("if-small", "ALLOW", {
	"conditions": [testing.condition("/arguments/amount", "lte", 500)],
	"reads": ["arguments"],
})

_unless_small := testing.rule("unless-small", "DENY", {
	"conditions": [testing.condition("/arguments/amount", "gt", 500)],
	"reads": ["arguments"],
})

_with_approval := testing.rule("with-approval", "ALLOW", {"obligations": [{"type": "REQUIRE_APPROVAL", "by": "lead"}]})

_no_scopes := {"scopes": []}

test_allowed[name] if {
	some name, [rules, changes, wanted] in {
		"by a bare rule": [[_allow], {}, {
			"effect": "ALLOW",
			"code": "ALLOWED",
			"policy_id": "P",
			"rule_id": "allow",
			"reason": `allowed by rule "allow" of policy "P"`,
			"obligations": [],
		}],
		"with the rule's own reason": [[testing.rule("r", "ALLOW", {"reason": "support may"})], {}, {
			"effect": "ALLOW",
			"reason": "support may",
		}],
		"by a condition that holds": [[_if_small], {"arguments": {"amount": 500}}, {
			"effect": "ALLOW",
			"rule_id": "if-small",
		}],
		"by the first of two rules": [[testing.rule("a", "ALLOW", {}), _allow], {}, {
			"effect": "ALLOW",
			"rule_id": "a",
		}],
		"by the first that applies": [[_if_small, _allow], {"arguments": {"amount": 501}}, {
			"effect": "ALLOW",
			"rule_id": "allow",
		}],
		"past a DENY rule that does not apply": [[_unless_small, _allow], {"arguments": {"amount": 500}}, {
			"effect": "ALLOW",
			"rule_id": "allow",
		}],
		"past a DENY rule of which one condition fails and one cannot be evaluated": [
			[
				testing.rule("d", "DENY", {"conditions": [
					testing.condition("/arguments/nothing", "eq", 1),
					testing.condition("/arguments/amount", "eq", 2),
				]}),
				_allow,
			],
			{"arguments": {"amount": 1}},
			{"effect": "ALLOW"},
		],
	}
	testing.has(testing.decide(rules, changes), wanted)
}

test_denied[name] if {
	some name, [rules, changes, wanted] in {
		"by a rule, with its own reason": [[_deny], {}, {
			"code": "DENIED_BY_RULE",
			"policy_id": "P",
			"rule_id": "deny",
			"reason": "not today",
		}],
		"by a rule without a reason": [[testing.rule("d", "DENY", {})], {}, {
			"code": "DENIED_BY_RULE",
			"reason": `denied by rule "d" of policy "P"`,
		}],
		"by the first of two rules": [[testing.rule("d", "DENY", {}), _deny], {}, {"rule_id": "d"}],
		"by a condition that holds": [[_allow, _unless_small], {"arguments": {"amount": 501}}, {
			"code": "DENIED_BY_RULE",
			"rule_id": "unless-small",
		}],
		"by a condition on what is missing": [[_allow, _unless_small], {}, {
			"code": "DENIED_BY_RULE",
			"rule_id": "unless-small",
		}],
		"by a condition on a number that is a text": [[_allow, _unless_small], {"arguments": {"amount": "1"}}, {
			"code": "DENIED_BY_RULE",
			"rule_id": "unless-small",
		}],
		"by two conditions, one that holds and one that cannot be evaluated": [
			[
				testing.rule("d", "DENY", {"conditions": [
					testing.condition("/arguments/nothing", "eq", 1),
					testing.condition("/arguments/amount", "eq", 1),
				]}),
				_allow,
			],
			{"arguments": {"amount": 1}},
			{"code": "DENIED_BY_RULE", "rule_id": "d"},
		],
		"by a condition not met": [[_if_small], {"arguments": {"amount": 501}}, {
			"code": "CONDITION_NOT_MET",
			"policy_id": "P",
			"rule_id": "if-small",
			"reason": "condition not met: /arguments/amount lte 500",
		}],
		"by a condition on what is missing, of an ALLOW rule": [[_if_small], {}, {"code": "CONDITION_NOT_MET"}],
		"by a condition on a number that is a text, of an ALLOW rule": [
			[_if_small],
			{"arguments": {"amount": "1"}},
			{"code": "CONDITION_NOT_MET"},
		],
		"by the first condition that is not met": [
			[testing.rule("r", "ALLOW", {"conditions": [
				testing.condition("/arguments/a", "eq", 1),
				testing.condition("/arguments/b", "eq", 2),
				testing.condition("/arguments/c", "eq", 3),
			]})],
			{"arguments": {"a": 1, "c": 0}},
			{"reason": "condition not met: /arguments/b eq 2"},
		],
		"by the first rule whose condition is not met": [
			[testing.rule("a", "ALLOW", {"conditions": [testing.condition_on("/arguments/x", "exists")]}), _if_small],
			{},
			{"rule_id": "a", "reason": "condition not met: /arguments/x exists"},
		],
		"by default": [[], {}, {
			"code": "NO_MATCHING_RULE",
			"reason": `no rule allows invoke on TOOL "agent:tool:order-lookup"`,
		}],
		"by default, where a rule is about another action": [
			[testing.rule("r", "ALLOW", {"narrowing": ["actions"], "actions": ["read"]})],
			{},
			{"code": "NO_MATCHING_RULE"},
		],
		"by default, where a DENY rule's condition fails": [[_unless_small], {"arguments": {"amount": 1}}, {
			"code": "NO_MATCHING_RULE",
		}],
	}
	testing.has(testing.decide(rules, changes), object.union({"effect": "DENY"}, wanted))
}

test_the_default_names_no_rule if {
	keys := object.keys(testing.decide([], {}))
	keys == {"as_of", "code", "depends_on", "effect", "reason", "revision"}
}

# Look-alikes of the one tool that a rule allows.
test_hostile_ids[name] if {
	some name, id in {
		"a longer one": "agent:tool:order-lookup-admin",
		"a shorter one": "agent:tool:order-look",
		"another case": "agent:tool:Order-Lookup",
		"a Cyrillic letter": "agent:tool:\u043erder-lookup",
		"a letter of full width": "agent:tool:\uff4frder-lookup",
		"a soft hyphen": "agent:tool:order-\u00adlookup",
		"no width at all": "agent:tool:order-lookup\u200b",
		"another hyphen": "agent:tool:order\u2010lookup",
		"a trailing space": "agent:tool:order-lookup ",
		"a leading space": " agent:tool:order-lookup",
		"a trailing line feed": "agent:tool:order-lookup\n",
		"a null character": "agent:tool:order-lookup\u0000",
		"nothing": "",
		"a star": "*",
		"two stars": "**",
		"a glob that takes it in": "agent:tool:*",
		"a regular expression that takes it in": "agent:tool:order.lookup",
		"another separator": "agent/tool/order-lookup",
		"a way round": "agent:tool:x/../order-lookup",
		"percent signs": "agent%3Atool%3Aorder-lookup",
	}
	decision := testing.decide([_allow], {"resource": {"id": id}})
	testing.has(decision, {"effect": "DENY", "code": "NO_MATCHING_RULE"})
}

test_hostile_types[type] if {
	some type in ["tool", "TOOL ", "", "*", "\u0422OOL", "AGENT"]
	testing.has(testing.decide([_allow], {"resource": {"type": type}}), {"code": "NO_MATCHING_RULE"})
}

test_deep_and_huge_arguments[name] if {
	some name, arguments in {
		"many": {sprintf("k%d", [i]): i | some i in numbers.range(1, 3000)},
		"long": {"amount": concat("", ["9" | some _ in numbers.range(1, 20000)])},
		"deep": json.unmarshal(concat("", array.concat(
			[`{"amount":` | some _ in numbers.range(1, 200)],
			array.concat(["1"], ["}" | some _ in numbers.range(1, 200)]),
		))),
	}
	testing.has(testing.decide([_allow, _unless_small], {"arguments": arguments}), {"code": "DENIED_BY_RULE"})
	testing.has(testing.decide([_if_small], {"arguments": arguments}), {"code": "CONDITION_NOT_MET"})
}

# Each case breaks two rows; the earlier one is the code, whatever the order of the rules.
test_precedence[name] if {
	some name, [code, rules, changes] in {
		"an ALLOW rule before a DENY rule": ["DENIED_BY_RULE", [_allow, _deny], {}],
		"a DENY rule before an ALLOW rule": ["DENIED_BY_RULE", [_deny, _allow], {}],
		"identity before a DENY rule": ["TENANT_MISMATCH", [_deny], {"tenant": {"named": ["acme"]}}],
		"impersonation before a DENY rule": ["IMPERSONATION", [_deny], {"principal": {"id": ""}}],
		"delegation before a DENY rule": ["DELEGATION_INVALID", [_deny], {"delegation": [{"id": "x", "scopes": []}]}],
		"identity before an ALLOW rule": ["TENANT_MISMATCH", [_allow], {"tenant": {"named": ["acme"]}}],
		"a DENY rule before scopes": ["DENIED_BY_RULE", [_deny], _no_scopes],
		"scopes before a condition": ["SCOPE_INSUFFICIENT", [_if_small], _no_scopes],
		"scopes before the default": ["SCOPE_INSUFFICIENT", [], _no_scopes],
		"scopes before an ALLOW rule": ["SCOPE_INSUFFICIENT", [_allow], _no_scopes],
		"scopes before an obligation": ["SCOPE_INSUFFICIENT", [_with_approval], _no_scopes],
		"a DENY rule before a condition": ["DENIED_BY_RULE", [_if_small, _deny], {}],
		"a DENY rule before an obligation": ["DENIED_BY_RULE", [_with_approval, _deny], {}],
		"an ALLOW rule before a condition": ["ALLOWED", [_if_small, _allow], {}],
		"a condition before the default": ["CONDITION_NOT_MET", [_if_small], {}],
		"an obligation before an ALLOW rule": ["OBLIGATION_UNSUPPORTED", [_allow, _with_approval], {}],
		"an obligation before a condition": ["OBLIGATION_UNSUPPORTED", [_if_small, _with_approval], {}],
	}
	testing.decide(rules, changes).code == code
}

test_precedence_of_a_suspended_resource[name] if {
	off := {"shared": {"resources": testing.catalogue({"TOOL": {"agent:tool:order-lookup": {"status": "SUSPENDED"}}})}}
	some name, [code, rules, changes] in {
		"before a DENY rule": ["RESOURCE_SUSPENDED", [_deny], {}],
		"before scopes": ["RESOURCE_SUSPENDED", [_allow], _no_scopes],
		"before an ALLOW rule": ["RESOURCE_SUSPENDED", [_allow], {}],
		"after identity": ["TENANT_MISMATCH", [_allow], {"tenant": {"named": ["acme"]}}],
	}
	compiled := object.union(testing.registry_of(rules), off)
	decision := testing.decide_under(compiled, testing.request_with(changes))
	decision.code == code
}

test_precedence_of_membership[name] if {
	some name, [rule, changes] in {
		"before a DENY rule": [{"effect": "DENY"}, {}],
		"before scopes": [{"effect": "ALLOW"}, _no_scopes],
		"before an ALLOW rule": [{"effect": "ALLOW"}, {}],
	}
	compiled := testing.registry_with("acme", {"rules": [object.union({"policy": "P", "id": "r"}, rule)]})
	decision := testing.decide_under(compiled, testing.request_of_acme(object.union({"subject": {"id": "dave"}}, changes)))
	testing.has(decision, {"code": "SUBJECT_NOT_MEMBER", "effect": "DENY"})
}

test_scopes[name] if {
	some name, [id, resources, scopes, code] in {
		"read by the scope for reading": ["order-lookup", {}, ["tools:read"], "ALLOWED"],
		"read by the scope for writing": ["order-lookup", {}, ["tools:write"], "ALLOWED"],
		"read without a scope": ["order-lookup", {}, [], "SCOPE_INSUFFICIENT"],
		"read by another scope": ["order-lookup", {}, ["tools:*"], "SCOPE_INSUFFICIENT"],
		"read by a scope in another case": ["order-lookup", {}, ["Tools:Read"], "SCOPE_INSUFFICIENT"],
		"write by the scope for writing": ["order-cancel", {}, ["tools:write"], "ALLOWED"],
		"write by the scope for reading": ["order-cancel", {}, ["tools:read"], "SCOPE_INSUFFICIENT"],
		"write by both": ["order-cancel", {}, ["tools:read", "tools:write"], "ALLOWED"],
		"no declared access needs no scope": ["order-print", {}, [], "ALLOWED"],
		"the tenant's own entry asks for more": [
			"order-lookup",
			{"agent:tool:order-lookup": {"access": "WRITE"}},
			["tools:read"],
			"SCOPE_INSUFFICIENT",
		],
		"the tenant's own entry asks for less": [
			"order-cancel",
			{"agent:tool:order-cancel": {"access": "READ"}},
			["tools:read"],
			"ALLOWED",
		],
		"the tenant's own entry declares no access": ["order-cancel", {"agent:tool:order-cancel": {}}, [], "ALLOWED"],
		"the tenant's own entry, of a tool that is not shared": [
			"order-print",
			{"agent:tool:order-print": {"access": "READ"}},
			[],
			"SCOPE_INSUFFICIENT",
		],
	}
	compiled := testing.registry_with("globex", {
		"rules": [_allow],
		"globs": {"TOOL": {"agent:tool:": [{"rule": 0}]}},
		"resources": {"TOOL": resources},
	})
	asked := testing.request_with({"resource": {"id": sprintf("agent:tool:%s", [id])}, "scopes": scopes})
	testing.decide_under(compiled, asked).code == code
}

test_scopes_in_words[name] if {
	some name, [id, scopes, reason] in {
		"reading": [
			"order-lookup",
			[],
			"READ access needs one of the scopes tools:read, tools:write; effective are: ",
		],
		"writing": [
			"order-cancel",
			["tools:read", "a"],
			"WRITE access needs one of the scopes tools:write; effective are: a, tools:read",
		],
	}
	changes := {"resource": {"id": sprintf("agent:tool:%s", [id])}, "scopes": scopes}
	testing.decide([_allow], changes).reason == reason
}

# A setting that grants an access to nobody, or does not speak of it, grants it to nobody.
test_scopes_that_no_setting_grants[name] if {
	some name, asked in {
		"none listed": testing.request_with({"settings": {"scopes": {"READ": []}}}),
		"access not listed": json.remove(testing.request, ["/settings/scopes/READ"]),
		"no setting": json.remove(testing.request, ["/settings/scopes"]),
	}
	testing.decide_under(testing.registry_of([_allow]), asked).code == "SCOPE_INSUFFICIENT"
}

# A delegation that reads only never reaches a tool that writes.
test_scopes_along_the_chain[name] if {
	some name, [changes, code] in {
		"a principal that may": [{}, "ALLOWED"],
		"an earlier actor that may not": [{"delegation": [{"id": "agent:report-bot"}]}, "SCOPE_INSUFFICIENT"],
		"an earlier actor that may not, where the current one alone counts": [
			{"delegation": [{"id": "agent:report-bot"}], "settings": {"delegation": {"check": "current"}}},
			"ALLOWED",
		],
		"a principal that may not": [{"principal": {"id": "agent:report-bot"}}, "SCOPE_INSUFFICIENT"],
	}
	asked := testing.request_of_acme({"resource": {"id": "agent:tool:order-cancel"}, "scopes": ["tools:write"]})
	testing.decide_under(testing.registry, object.union(asked, changes)).code == code
}

_approve := {"type": "REQUIRE_APPROVAL", "by": "lead"}

_log := {"type": "LOG"}

_log_more := {"type": "LOG", "level": "full"}

test_obligations[name] if {
	some name, [obligations, accepts, wanted] in {
		"none": [[[]], [], {"code": "ALLOWED", "obligations": []}],
		"one": [[[_approve]], ["REQUIRE_APPROVAL"], {"code": "ALLOWED", "obligations": [_approve]}],
		"of all rules, in order": [[[_log], [_approve]], ["LOG", "REQUIRE_APPROVAL"], {
			"code": "ALLOWED",
			"obligations": [_log, _approve],
		}],
		"each once": [[[_log, _approve], [_approve, _log]], ["LOG", "REQUIRE_APPROVAL"], {
			"code": "ALLOWED",
			"obligations": [_log, _approve],
		}],
		"two of one type that differ": [[[_log], [_log_more]], ["LOG"], {
			"code": "ALLOWED",
			"obligations": [_log, _log_more],
		}],
		"of the second rule alone": [[[], [_log]], ["LOG"], {
			"code": "ALLOWED",
			"rule_id": "r0",
			"obligations": [_log],
		}],
		"one that the caller cannot carry out": [[[_approve]], ["LOG"], {
			"code": "OBLIGATION_UNSUPPORTED",
			"rule_id": "r0",
			"reason": "the caller does not say that it carries out REQUIRE_APPROVAL",
		}],
		"a broad rule cannot bypass it": [[[], [_approve]], [], {"code": "OBLIGATION_UNSUPPORTED", "rule_id": "r1"}],
		"the first rule that demands too much is named": [[[_log], [_approve], [_approve]], ["LOG"], {
			"code": "OBLIGATION_UNSUPPORTED",
			"rule_id": "r1",
		}],
		"all of one rule that the caller cannot carry out": [[[_approve, _log]], [], {
			"reason": "the caller does not say that it carries out LOG, REQUIRE_APPROVAL",
		}],
		"a type in another case": [[[_log]], ["log"], {"code": "OBLIGATION_UNSUPPORTED"}],
	}
	rules := [testing.rule(sprintf("r%d", [i]), "ALLOW", _demanding(list)) | some i, list in obligations]
	testing.has(testing.decide(rules, {"accepts": accepts}), wanted)
}

# As the compiler writes it: no obligations rather than an empty list.
_demanding([]) := {}

_demanding(list) := {"obligations": list} if count(list) > 0

test_no_obligations_of_rules_that_do_not_apply if {
	rule := object.union(_with_approval, {"conditions": [testing.condition_on("/arguments/x", "exists")]})
	testing.has(testing.decide([_allow, rule], {}), {"code": "ALLOWED", "obligations": []})
}

test_no_obligations_with_a_denial if {
	not "obligations" in object.keys(testing.decide([_with_approval, _deny], {"accepts": ["REQUIRE_APPROVAL"]}))
}

test_what_every_decision_carries[tenant] if {
	some tenant, bound in {"acme": {"max_staleness_seconds": 900}, "globex": {}}
	decision := testing.decide_under(testing.registry, testing.request_with({"tenant": {"id": tenant}}))
	state := {"revision": "20260102T030405Z-0123456789ab", "as_of": 1767323045000000}
	object.filter(decision, ["revision", "as_of", "max_staleness_seconds"]) == object.union(state, bound)
}

test_no_explanation_unless_wanted if {
	not "explanation" in object.keys(testing.decide([_allow], {}))
}

test_explains_all_codes[name] if {
	some name, [codes, rules, changes] in {
		"an ALLOW": [["ALLOWED"], [_allow], {}],
		"a DENY rule over an ALLOW rule": [["DENIED_BY_RULE", "ALLOWED"], [_allow, _deny], {}],
		"two DENY rules": [["DENIED_BY_RULE", "DENIED_BY_RULE", "NO_MATCHING_RULE"], [_deny, testing.rule("d", "DENY", {})], {}],
		"a DENY rule, scopes and a condition": [
			["DENIED_BY_RULE", "SCOPE_INSUFFICIENT", "CONDITION_NOT_MET"],
			[_if_small, _deny],
			_no_scopes,
		],
		"identity, scopes and an obligation": [
			["TENANT_MISMATCH", "IMPERSONATION", "SCOPE_INSUFFICIENT", "OBLIGATION_UNSUPPORTED"],
			[_with_approval],
			object.union(_no_scopes, {"tenant": {"named": ["acme"]}, "principal": {"id": "alice"}}),
		],
	}
	explanation := testing.decide(rules, object.union({"explain": true}, changes)).explanation
	[finding.code | some finding in explanation.codes] == codes
}

test_explanation if {
	decision := testing.decide_under(testing.registry, testing.request_of_acme({
		"explain": true,
		"resource": {"id": "agent:tool:order-lookup"},
		"scopes": ["tools:read", "admin"],
		"subject": {"roles": ["auditor"]},
	}))
	decision.explanation == {
		"codes": [{
			"code": "ALLOWED",
			"policy_id": "POL-A",
			"rule_id": "rule-1",
			"reason": `allowed by rule "rule-1" of policy "POL-A"`,
		}],
		"rules": [
			{
				"policy_id": "POL-A",
				"rule_id": "rule-1",
				"effect": "ALLOW",
				"verdict": "APPLIES",
				"narrowed_by": [],
				"conditions": [],
			},
			{
				"policy_id": "POL-SUPPORT",
				"rule_id": "any-order-tool",
				"effect": "ALLOW",
				"verdict": "APPLIES",
				"narrowed_by": [],
				"conditions": [],
			},
		],
		"principal": "agent:order-bot",
		"subject": "alice",
		"roles": ["auditor", "support"],
		"effective_scopes": ["tools:read"],
		"weakest_hop": {"id": "agent:order-bot", "hop": 0, "lacks": ["admin"]},
	}
}

test_explains_who_asks[name] if {
	some name, [who, changes] in {
		"an agent for a user": [{"principal": "agent:order-bot", "subject": "alice"}, {}],
		"an agent for nobody": [{"principal": "agent:order-bot", "subject": ""}, {"subject": {"id": ""}}],
		"nobody for a user": [{"principal": "", "subject": "alice"}, {"principal": {"id": ""}}],
	}
	explanation := testing.decide([_allow], object.union({"explain": true}, changes)).explanation
	testing.has(explanation, who)
	not "weakest_hop" in object.keys(explanation)
}

test_explains_the_rules_of_a_refused_request if {
	decision := testing.decide([_deny], {"explain": true, "principal": {"id": ""}})
	decision.code == "IMPERSONATION"
	[rule.verdict | some rule in decision.explanation.rules] == ["APPLIES"]
}

# A question with a hole in it has no answer, and nobody takes that for an ALLOW.
test_no_decision_on_a_malformed_request[path] if {
	some path in [
		"/tenant/id",
		"/principal/id",
		"/subject/id",
		"/subject/roles",
		"/delegation",
		"/scopes",
		"/time",
		"/resource",
		"/resource/type",
		"/resource/id",
		"/action",
		"/action/name",
		"/arguments",
	]
	not testing.decide_under(testing.registry_of([_allow]), json.remove(testing.request, [path]))
	not testing.decide_under(_at_a_glance, json.remove(testing.request_with(_about("t:one")), [path]))
}

test_only_the_caller_can_say_what_it_carries_out if {
	asked := json.remove(testing.request, ["/accepts"])
	not testing.decide_under(testing.registry_of([_with_approval]), asked).effect == "ALLOW"
}

# What could not be decided is not decided for being explained.
test_no_explained_decision_on_a_malformed_request[path] if {
	some path in ["/subject/id", "/subject/roles", "/time", "/scopes", "/principal/id", "/tenant/id"]
	asked := json.remove(testing.request_with({"explain": true}), [path])
	not testing.decide_under(testing.registry_of([_allow]), asked)
}

# Arguments that are no object are not arguments left open, which would leave a DENY rule undecided.
test_no_decision_on_arguments_that_are_false if {
	not testing.decide([_allow, _deny_if_large], {"arguments": false})
}

_deny_if_large := testing.rule("large", "DENY", {"conditions": [testing.condition("/arguments/amount", "gt", 5)]})
