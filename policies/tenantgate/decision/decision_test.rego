package tenantgate.decision_test

import data.tenantgate.decision as table
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

# What is decided at a glance: a tool of the shared catalogue, an agent that acts for a member directly, rules that allow whatever is
# asked. Each case changes the registry or the request.
_at_a_glance := object.union(
	testing.registry_with("globex", {
		"terms": {"membership": "REQUIRED", "agents": true},
		"members": {"alice": {"status": "ACTIVE"}, "carol": {"status": "SUSPENDED"}},
		"agents": {
			"agent:order-bot": {"scopes": ["tools:read"], "status": "ACTIVE"},
			"agent:writer": {"scopes": ["tools:write"], "status": "ACTIVE"},
			"agent:poor": {"scopes": [], "status": "ACTIVE"},
			"agent:old": {"scopes": ["tools:read"], "status": "SUSPENDED"},
			"alice": {"scopes": ["tools:read"], "status": "ACTIVE"},
		},
		"rules": [
			testing.rule("a", "ALLOW", {}),
			testing.rule(`with "quotes" and \`, "ALLOW", {}),
			testing.rule("c", "ALLOW", {"reason": "because"}),
			testing.rule("d", "DENY", {}),
			testing.rule("e", "ALLOW", {"obligations": [_log]}),
		],
		"exact": {"TOOL": {
			"t:one": [0],
			"t:two": [1, 2],
			"t:three": [2, 1],
			"t:denied": [0, 3],
			"t:demanding": [0, 4],
			"t:own": [0],
			"t:own-off": [0],
			"t:off": [0],
			"t:write": [0],
			"t:no-entry": [0],
			"t:attributes": [0],
		}},
		"globs": {"TOOL": {
			"t:g": [{"rule": 2, "rest": `^(?s:[^:/]*)$`}],
			"t:gl": [{"rule": 1, "rest": `^(?s:[^:/]*)$`}],
			"t:h": [{"rule": 3, "rest": `^(?s:[^:/]*)$`}, {"rule": 2, "rest": `^(?s:.*)$`}],
		}},
		"resources": {"TOOL": {"t:own": {"access": "WRITE"}, "t:own-off": {"status": "SUSPENDED"}}},
	}),
	{"shared": {"resources": testing.catalogue({"TOOL": object.union(
		{id: {"access": "READ"} |
			some id in ["t:one", "t:two", "t:three", "t:denied", "t:demanding", "t:own", "t:own-off", "t:g", "t:glob", "t:h", "t:none"]
		},
		{
			"t:off": {"access": "READ", "status": "SUSPENDED"},
			"t:write": {"access": "WRITE"},
			"t:attributes": {"access": "READ", "attributes": {"a": 1}},
		},
	)})}},
)

_about(id) := {"resource": {"id": id}}

test_as_by_the_whole_table[name] if {
	some name, [changes, code, rule] in {
		"one rule": [_about("t:one"), "ALLOWED", "a"],
		"the first of two rules": [_about("t:two"), "ALLOWED", `with "quotes" and \`],
		"the first of two rules, in whatever order they are named": [_about("t:three"), "ALLOWED", `with "quotes" and \`],
		"a DENY rule beside": [_about("t:denied"), "DENIED_BY_RULE", "d"],
		"an obligation beside": [_about("t:demanding"), "OBLIGATION_UNSUPPORTED", "e"],
		"one glob": [_about("t:g"), "ALLOWED", "c"],
		"two globs, of which one begins like the other": [_about("t:glob"), "ALLOWED", `with "quotes" and \`],
		"two globs that begin alike": [_about("t:h"), "DENIED_BY_RULE", "d"],
		"no rule": [_about("t:none"), "NO_MATCHING_RULE", ""],
		"an own entry that asks for more": [_about("t:own"), "SCOPE_INSUFFICIENT", ""],
		"an own entry that is suspended": [_about("t:own-off"), "RESOURCE_SUSPENDED", ""],
		"a shared entry that is suspended": [_about("t:off"), "RESOURCE_SUSPENDED", ""],
		"a shared entry that is suspended, and a setting of that name": [
			object.union(_about("t:off"), {"settings": {"scopes": {"READ\nSUSPENDED": ["tools:read"]}}}),
			"RESOURCE_SUSPENDED",
			"",
		],
		"a shared entry that writes": [_about("t:write"), "SCOPE_INSUFFICIENT", ""],
		"a shared entry with attributes": [_about("t:attributes"), "ALLOWED", "a"],
		"no entry": [_about("t:no-entry"), "ALLOWED", "a"],
		"an agent with another scope that will do": [
			{"principal": {"id": "agent:writer"}, "scopes": ["tools:write"]},
			"ALLOWED",
			"a",
		],
		"an agent that may hold no scope": [{"principal": {"id": "agent:poor"}}, "SCOPE_INSUFFICIENT", ""],
		"an agent that may not hold the scope": [{"principal": {"id": "agent:writer"}}, "SCOPE_INSUFFICIENT", ""],
		"no scope": [{"scopes": []}, "SCOPE_INSUFFICIENT", ""],
		"an agent that is suspended": [{"principal": {"id": "agent:old"}}, "DELEGATION_INVALID", ""],
		"no agent of the tenant": [{"principal": {"id": "agent:none"}}, "DELEGATION_INVALID", ""],
		"an agent that is the subject": [{"principal": {"id": "alice"}}, "IMPERSONATION", ""],
		"a suspended member": [{"subject": {"id": "carol"}}, "SUBJECT_NOT_MEMBER", ""],
		"no member": [{"subject": {"id": "dave"}}, "SUBJECT_NOT_MEMBER", ""],
		"a chain": [{"delegation": [{"id": "agent:old"}]}, "DELEGATION_INVALID", ""],
		"an agent that may act": [{"may_act": ["agent:order-bot"]}, "ALLOWED", "a"],
		"an agent that may not act": [{"may_act": []}, "DELEGATION_INVALID", ""],
		"the tenant named": [{"tenant": {"named": ["globex"]}}, "ALLOWED", "a"],
		"another tenant named": [{"tenant": {"named": ["globex", "acme"]}}, "TENANT_MISMATCH", ""],
		"explained": [{"explain": true}, "ALLOWED", "a"],
	}
	asked := object.union(testing.request_with(_about("t:one")), changes)
	decision := testing.decide_under(_at_a_glance, asked)
	decision == table.judge(asked) with data.registry.base as _at_a_glance with input as asked
	[decision.code, object.get(decision, "rule_id", "")] == [code, rule]
}

test_as_by_the_whole_table_under_another_registry[name] if {
	overlay := testing.overlay_of({})
	off := testing.catalogue({"TOOL": {"t:one": {"access": "READ", "status": "SUSPENDED"}}})
	some name, [changes, wanted] in {
		"with a bound": [
			{"base": {"tenants": {"globex": {"terms": {"max_staleness_seconds": 7}}}}},
			{"code": "ALLOWED", "max_staleness_seconds": 7},
		],
		"suspended": [{"base": {"tenants": {"globex": {"terms": {"status": "SUSPENDED"}}}}}, {"code": "TENANT_SUSPENDED"}],
		"with an extension": [{"base": {"meta": {"extensions": ["x"]}}}, {"code": "DENIED_BY_RULE"}],
		"with an overlay": [{"overlay": overlay}, {"code": "ALLOWED", "revision": overlay.meta.revision}],
		"with an overlay that has another catalogue": [
			{"overlay": object.union(overlay, {"shared": {"resources": {}, "version": overlay.meta.since}})},
			{"code": "ALLOWED", "revision": overlay.meta.revision},
		],
		"with an overlay that shuts off the tool": [
			{"overlay": object.union(overlay, {"shared": {"resources": off, "version": overlay.meta.since}})},
			{"code": "RESOURCE_SUSPENDED", "revision": overlay.meta.revision},
		],
		"with an overlay that suspends the tenant": [
			{"overlay": _overlay_of_globex({"terms": {"status": "SUSPENDED"}})},
			{"code": "TENANT_SUSPENDED", "revision": overlay.meta.revision},
		],
		"with an overlay in which the tenant sets a bound": [
			{"overlay": _overlay_of_globex({"terms": {"max_staleness_seconds": 7}})},
			{"code": "ALLOWED", "max_staleness_seconds": 7, "revision": overlay.meta.revision},
		],
		"with an overlay in which the tenant shuts off the tool": [
			{"overlay": _overlay_of_globex({"resources": off})},
			{"code": "RESOURCE_SUSPENDED", "revision": overlay.meta.revision},
		],
		"with an overlay beside another base": [
			{"overlay": object.union(overlay, {"meta": {"base": "another"}})},
			{"code": "ALLOWED", "revision": sprintf("%s+%s", [overlay.meta.revision, _at_a_glance.meta.revision])},
		],
		"with an overlay and an extension": [
			{"base": {"meta": {"extensions": ["x"]}}, "overlay": overlay},
			{"code": "DENIED_BY_RULE"},
		],
	}
	layers := object.union({"base": _at_a_glance}, changes)
	asked := testing.request_with(_about("t:one"))
	decision := data.tenantgate.authorize.decision with data.registry as layers with input as asked
	decision == table.judge(asked) with data.registry as layers with input as asked
	testing.has(decision, wanted)
}

_overlay_of_globex(changes) := testing.overlay_of({"globex": object.union_n([
	_at_a_glance.tenants.globex,
	{"terms": {"version": testing.registry.meta.as_of}},
	changes,
])})

# Rules of every kind decide at a glance as they do by the whole table, which is gone through where the catalogue says more of a tool
# than its access.
test_rules_decide_at_a_glance[name] if {
	some name, [rules, changes, code] in {
		"one that allows": [[_allow], {}, "ALLOWED"],
		"one that denies": [[_deny], {}, "DENIED_BY_RULE"],
		"one that denies by a condition that holds": [[_unless_small], {"arguments": {"amount": 501}}, "DENIED_BY_RULE"],
		"one that denies by a condition that cannot be evaluated": [[_allow, _unless_small], {}, "DENIED_BY_RULE"],
		"one that denies by a condition that fails": [[_unless_small], {"arguments": {"amount": 1}}, "NO_MATCHING_RULE"],
		"one that allows by a condition that holds": [[_if_small], {"arguments": {"amount": 1}}, "ALLOWED"],
		"one that allows by a condition that fails": [[_if_small], {"arguments": {"amount": 501}}, "CONDITION_NOT_MET"],
		"one that allows by a condition that cannot be evaluated": [[_if_small], {}, "CONDITION_NOT_MET"],
		"one that demands what the caller cannot do": [[_with_approval], {}, "OBLIGATION_UNSUPPORTED"],
		"one that demands what the caller can do": [[_with_approval], {"accepts": ["REQUIRE_APPROVAL"]}, "ALLOWED"],
		"one about another action": [[_reading], {}, "NO_MATCHING_RULE"],
		"one about another action, and one that allows": [[_reading, _allow], {}, "ALLOWED"],
		"one with an end to come": [[_until(3000)], {}, "ALLOWED"],
		"one with an end that is past": [[_until(10)], {}, "NO_MATCHING_RULE"],
		"one that allows, and one with an end to come": [[_allow, _until(3000)], {}, "ALLOWED"],
	}
	bare := object.union(
		testing.registry_with("globex", {
			"terms": {"membership": "REQUIRED", "agents": true},
			"members": {"alice": {"status": "ACTIVE"}},
			"agents": {"agent:order-bot": {"scopes": ["tools:read"], "status": "ACTIVE"}},
			"rules": rules,
			"exact": {"TOOL": {"agent:tool:order-lookup": [i | some i, _ in rules]}},
		}),
		{"shared": {"resources": testing.catalogue({"TOOL": {"agent:tool:order-lookup": {"access": "READ"}}})}},
	)
	decision := testing.decide_under(bare, testing.request_with(changes))
	decision == testing.decide(rules, changes)
	decision.code == code
}

_reading := testing.rule("reading", "ALLOW", {"narrowing": ["actions"], "actions": ["read"]})

_until(moment) := testing.rule("until", "ALLOW", {"narrowing": ["not_after"], "not_after": moment})

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
