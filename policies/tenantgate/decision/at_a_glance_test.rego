package tenantgate.decision_test

import data.tenantgate.decision as table
import data.tenantgate.testing

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
