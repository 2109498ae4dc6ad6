package tenantgate.extensions_test

import data.tenantgate.authorize
import data.tenantgate.extensions
import data.tenantgate.testing
import data.tenantgate.tools

_allow := testing.rule("r", "ALLOW", {})

_registry(names) := object.union(testing.registry_of([_allow]), {"meta": {"extensions": names}})

_decide(custom, names, changes) := decision if {
	decision := authorize.decision with data.custom as custom
		with data.registry.base as _registry(names)
		with input as testing.request_with(changes)
}

_answer(custom, names) := answer if {
	listing := tools.listing with data.custom as custom
		with data.registry.base as _registry(names)
		with input as testing.request_about([testing.item_with({})], {})
	[answer] = listing.tools
}

_quiet := {"deny": set(), "depends_on": []}

_firm := {"deny": {"frozen"}, "depends_on": []}

test_decision[name] if {
	some name, [custom, names, wanted] in {
		"no extension": [{}, [], {"code": "ALLOWED"}],
		"one without a reason to deny": [{"quiet": _quiet}, ["quiet"], {"code": "ALLOWED"}],
		"one with a reason": [{"firm": _firm}, ["firm"], {
			"effect": "DENY",
			"code": "DENIED_BY_RULE",
			"policy_id": "custom.firm",
			"reason": "frozen",
		}],
		"one that the bundle does not list": [{"firm": _firm}, [], {"code": "ALLOWED"}],
		"the first of two by name": [
			{"b": {"deny": {"b says so"}}, "a": {"deny": {"a says so"}}},
			["a", "b"],
			{"policy_id": "custom.a", "reason": "a says so"},
		],
		"one after one without a reason": [{"firm": _firm, "a": _quiet}, ["a", "firm"], {"policy_id": "custom.firm"}],
		"a reason that is no text": [{"x": {"deny": {42}}}, ["x"], {"code": "DENIED_BY_RULE", "reason": "42"}],
		"no set of reasons": [{"x": {"allow": true}}, ["x"], {
			"code": "DENIED_BY_RULE",
			"policy_id": "custom.x",
			"reason": "the extension \"x\" defines no set `deny`",
		}],
		"one that is listed and not there": [{}, ["gone"], {
			"code": "DENIED_BY_RULE",
			"reason": "the extension \"gone\" defines no set `deny`",
		}],
		"a flag for a set": [{"x": {"deny": false}}, ["x"], {"code": "DENIED_BY_RULE"}],
		"a list for a set": [{"x": {"deny": []}}, ["x"], {"code": "DENIED_BY_RULE"}],
		"a text for a set": [{"x": {"deny": ""}}, ["x"], {"code": "DENIED_BY_RULE"}],
		"an object for a set": [{"x": {"deny": {}}}, ["x"], {"code": "DENIED_BY_RULE"}],
	}
	testing.has(_decide(custom, names, {}), wanted)
}

test_an_extension_cannot_allow[name] if {
	some name, extension in {
		"by a word of its own": {"deny": set(), "allow": true},
		"by a reason": {"deny": {"ALLOWED"}},
		"by an effect": {"deny": set(), "effect": "ALLOW"},
	}
	decision := authorize.decision with data.custom as {"x": extension}
		with data.registry.base as object.union(testing.registry, {"meta": {"extensions": ["x"]}})
		with input as testing.request
	decision.effect == "DENY"
}

test_all_reasons_are_explained if {
	decision := _decide({"a": {"deny": {"y", "x"}}, "b": {"deny": {"z"}}}, ["a", "b"], {"explain": true})
	[finding.reason | some finding in decision.explanation.codes; finding.policy_id != "P"] == ["x", "y", "z"]
}

# One who is turned away at the door is not put to the extensions, unless all that applies is wanted.
test_refused_before[name] if {
	some name, [explain, codes, parts] in {
		"plain": [false, [], []],
		"explained": [true, ["IMPERSONATION", "DENIED_BY_RULE", "ALLOWED"], ["context"]],
	}
	custom := {"x": {"deny": {"no"}, "depends_on": ["context"]}}
	decision := _decide(custom, ["x"], {"explain": explain, "principal": {"id": ""}})
	decision.code == "IMPERSONATION"
	[finding.code | some finding in object.get(decision, ["explanation", "codes"], [])] == codes
	decision.depends_on == {part | some part in parts}
}

_everything := ["action.properties", "arguments", "context", "resource.properties", "subject.properties", "time"]

test_depends_on[name] if {
	some name, [custom, names, parts] in {
		"no extension": [{}, [], []],
		"one that says so": [{"x": {"deny": set(), "depends_on": ["context"]}}, ["x"], ["context"]],
		"one that says so by a set": [{"x": {"deny": set(), "depends_on": {"context"}}}, ["x"], ["context"]],
		"one that reads nothing": [{"x": _quiet}, ["x"], []],
		"one that does not say": [{"x": {"deny": set()}}, ["x"], _everything],
		"one that says it by a text": [{"x": {"deny": set(), "depends_on": "context"}}, ["x"], _everything],
		"one that says it by an object": [{"x": {"deny": set(), "depends_on": {"context": true}}}, ["x"], _everything],
		"one that says it by null": [{"x": {"deny": set(), "depends_on": null}}, ["x"], _everything],
		"two": [
			{"a": {"deny": set(), "depends_on": ["time"]}, "b": {"deny": set(), "depends_on": ["context", "time"]}},
			["a", "b"],
			["context", "time"],
		],
	}
	_decide(custom, names, {}).depends_on == {part | some part in parts}
}

test_with_open_arguments[name] if {
	some name, [extension, wanted] in {
		"one that does not read them, without a reason": [_quiet, {"state": "ALLOWED"}],
		"one that does not read them, with a reason": [_firm, {"state": "DENIED", "code": "DENIED_BY_RULE"}],
		"one that reads them": [
			{"deny": set(), "depends_on": ["arguments"]},
			{"state": "CONDITIONAL", "residual": [], "extensions": ["x"]},
		],
		"one that reads them, and would deny": [
			{"deny": {"no"}, "depends_on": ["arguments"]},
			{"state": "CONDITIONAL", "extensions": ["x"]},
		],
		"one that does not say": [{"deny": set()}, {"state": "CONDITIONAL", "extensions": ["x"]}],
	}
	testing.has(_answer({"x": extension}, ["x"]), wanted)
}

test_only_open_extensions_are_named if {
	_answer({"a": _quiet, "x": {"deny": set()}}, ["a", "x"]).extensions == ["x"]
}

test_decidable[name] if {
	some name, [item, extension, decidable] in {
		"known arguments": [{"arguments": {}}, {"depends_on": ["arguments"]}, true],
		"open arguments that it does not read": [{}, {"depends_on": ["context"]}, true],
		"open arguments that it reads": [{}, {"depends_on": ["arguments"]}, false],
	}
	found := [true | extensions.decidable("x", item)] with data.custom as {"x": extension}
	count(found) == 1 == decidable
}

# An extension is asked about one item at a time, and sees it where a single request has it.
test_sees_the_item[name] if {
	some name, [changes, reasons] in {
		"what it looks for": [{"context": {"channel": "mail"}}, ["agent:tool:order-cancel by mail, besides nothing"]],
		"not what it looks for": [{}, []],
	}
	item := testing.item_with(object.union({"arguments": {}, "resource": {"id": "agent:tool:order-cancel"}}, changes))
	other := testing.item_with({"context": {"channel": "chat"}})
	said := extensions.reasons("telling_test", item) with input as testing.request_about([item, other], {})
	said == reasons
}
