package tenantgate.conditions_test

import data.tenantgate.conditions
import data.tenantgate.testing

_cyrillic_id := "agent:tool:\u043erder-lookup"

_depth := 40

_deep := {"arguments": json.unmarshal(concat("", array.concat(
	[`{"a":` | some _ in numbers.range(1, _depth)],
	array.concat(["1"], ["}" | some _ in numbers.range(1, _depth)]),
)))}

_huge := {"arguments": {"ids": numbers.range(1, 5000)}}

# Each row: the operator, what is found at the path, what is expected, the outcome.
test_compares_with_a_value[name] if {
	some name, [op, actual, expected, outcome] in {
		"eq: equal texts": ["eq", "a", "a", "HOLDS"],
		"eq: different texts": ["eq", "a", "b", "FAILS"],
		"eq: another case": ["eq", "a", "A", "FAILS"],
		"eq: a trailing space": ["eq", "a", "a ", "FAILS"],
		"eq: letters that look alike": ["eq", "o", "\u043e", "FAILS"],
		"eq: two empty texts": ["eq", "", "", "HOLDS"],
		"eq: 1 is 1.0": ["eq", 1, 1.0, "HOLDS"],
		"eq: 100 is 1e2": ["eq", 100, 1e2, "HOLDS"],
		"eq: 1 is not its text": ["eq", 1, "1", "FAILS"],
		"eq: a text is not its number": ["eq", "1", 1, "FAILS"],
		"eq: 1 is not true": ["eq", 1, true, "FAILS"],
		"eq: 0 is not false": ["eq", 0, false, "FAILS"],
		"eq: false is false": ["eq", false, false, "HOLDS"],
		"eq: true is not its text": ["eq", true, "true", "FAILS"],
		"eq: null is null": ["eq", null, null, "HOLDS"],
		"eq: null is not the empty text": ["eq", null, "", "FAILS"],
		"eq: null is not false": ["eq", null, false, "FAILS"],
		"eq: whole numbers beyond 2^53 are kept apart": ["eq", 9007199254740993, 9007199254740992, "FAILS"],
		"eq: arrays in order": ["eq", [1, 2], [1, 2], "HOLDS"],
		"eq: arrays out of order": ["eq", [1, 2], [2, 1], "FAILS"],
		"eq: objects whatever their order": ["eq", {"a": 1, "b": [2]}, {"b": [2.0], "a": 1}, "HOLDS"],
		"eq: an object with one more": ["eq", {"a": 1, "b": 2}, {"a": 1}, "FAILS"],
		"eq: an array of one is not its element": ["eq", ["a"], "a", "FAILS"],
		"ne: different": ["ne", "a", "b", "HOLDS"],
		"ne: equal": ["ne", "a", "a", "FAILS"],
		"ne: different types": ["ne", 1, "1", "HOLDS"],
		"ne: 1 and 1.0": ["ne", 1, 1.0, "FAILS"],
		"ne: null and null": ["ne", null, null, "FAILS"],
		"lt: less": ["lt", 1, 2, "HOLDS"],
		"lt: equal": ["lt", 2, 2, "FAILS"],
		"lt: more": ["lt", 3, 2, "FAILS"],
		"lt: fractions": ["lt", 1.5, 1.6, "HOLDS"],
		"lt: below zero": ["lt", -2, -1, "HOLDS"],
		"lt: texts letter by letter": ["lt", "10", "9", "HOLDS"],
		"lt: a text and a number": ["lt", "1", 2, "UNEVALUABLE"],
		"lt: a number and a text": ["lt", 1, "2", "UNEVALUABLE"],
		"lt: null": ["lt", null, 1, "UNEVALUABLE"],
		"lt: a boolean": ["lt", false, 1, "UNEVALUABLE"],
		"lt: arrays": ["lt", [1], [2], "UNEVALUABLE"],
		"lte: less": ["lte", 499.99, 500, "HOLDS"],
		"lte: equal": ["lte", 500, 500, "HOLDS"],
		"lte: equal, as a fraction": ["lte", 500.0, 500, "HOLDS"],
		"lte: more": ["lte", 500.01, 500, "FAILS"],
		"lte: more, in scientific notation": ["lte", 1e3, 500, "FAILS"],
		"lte: equal texts": ["lte", "a", "a", "HOLDS"],
		"lte: a number as a text": ["lte", "100", 500, "UNEVALUABLE"],
		"lte: an object": ["lte", {}, 500, "UNEVALUABLE"],
		"gt: more": ["gt", 3, 2, "HOLDS"],
		"gt: equal": ["gt", 2, 2, "FAILS"],
		"gt: less": ["gt", 1, 2, "FAILS"],
		"gt: texts": ["gt", "b", "a", "HOLDS"],
		"gt: a number as a text": ["gt", "3", 2, "UNEVALUABLE"],
		"gt: true": ["gt", true, 0, "UNEVALUABLE"],
		"gte: more": ["gte", 3, 2, "HOLDS"],
		"gte: equal": ["gte", 2, 2, "HOLDS"],
		"gte: less": ["gte", 1, 2, "FAILS"],
		"gte: texts": ["gte", "a", "b", "FAILS"],
		"gte: null": ["gte", null, 2, "UNEVALUABLE"],
		"in: an element": ["in", "b", ["a", "b"], "HOLDS"],
		"in: no element": ["in", "c", ["a", "b"], "FAILS"],
		"in: 1 is among [1.0]": ["in", 1, [1.0], "HOLDS"],
		"in: 1 is not among its texts": ["in", 1, ["1"], "FAILS"],
		"in: null": ["in", null, [null], "HOLDS"],
		"in: false": ["in", false, [false, true], "HOLDS"],
		"in: an array is an element": ["in", ["a"], [["a"], "b"], "HOLDS"],
		"in: an array is not its elements": ["in", ["a"], ["a", "b"], "FAILS"],
		"in: an empty list": ["in", "a", [], "FAILS"],
		"in: a text is no list": ["in", "a", "abc", "UNEVALUABLE"],
		"in: an object is no list": ["in", "a", {"k": "a"}, "UNEVALUABLE"],
		"not_in: no element": ["not_in", "c", ["a", "b"], "HOLDS"],
		"not_in: an element": ["not_in", "a", ["a", "b"], "FAILS"],
		"not_in: 1 is not among its texts": ["not_in", 1, ["1"], "HOLDS"],
		"not_in: an empty list": ["not_in", "a", [], "HOLDS"],
		"not_in: a text is no list": ["not_in", "z", "abc", "UNEVALUABLE"],
		"not_in: null is no list": ["not_in", "a", null, "UNEVALUABLE"],
		"prefix: it begins so": ["prefix", "abc", "ab", "HOLDS"],
		"prefix: it does not": ["prefix", "abc", "bc", "FAILS"],
		"prefix: another case": ["prefix", "Abc", "ab", "FAILS"],
		"prefix: the empty text": ["prefix", "abc", "", "HOLDS"],
		"prefix: a number": ["prefix", 123, "1", "UNEVALUABLE"],
		"prefix: of an array": ["prefix", ["ab"], "ab", "UNEVALUABLE"],
		"suffix: it ends so": ["suffix", "abc", "bc", "HOLDS"],
		"suffix: it does not": ["suffix", "abc", "ab", "FAILS"],
		"suffix: a trailing space": ["suffix", "abc ", "bc", "FAILS"],
		"suffix: null": ["suffix", null, "bc", "UNEVALUABLE"],
		"suffix: a boolean": ["suffix", true, "e", "UNEVALUABLE"],
		"glob: it matches": ["glob", "a:b", "a:*", "HOLDS"],
		"glob: a star stays in its segment": ["glob", "a:b:c", "a:*", "FAILS"],
		"glob: two stars cross": ["glob", "a:b:c", "a:**", "HOLDS"],
		"glob: a number": ["glob", 12, "1*", "UNEVALUABLE"],
		"glob: an array": ["glob", ["a"], "a*", "UNEVALUABLE"],
		"contains: an array's element": ["contains", ["a", "b"], "b", "HOLDS"],
		"contains: no element": ["contains", ["a", "b"], "c", "FAILS"],
		"contains: an array's number": ["contains", [1, 2], 2.0, "HOLDS"],
		"contains: a number is not its text": ["contains", [1, 2], "2", "FAILS"],
		"contains: null as an element": ["contains", [null], null, "HOLDS"],
		"contains: part of an element is no element": ["contains", ["abc"], "b", "FAILS"],
		"contains: a text's part": ["contains", "abc", "b", "HOLDS"],
		"contains: no part": ["contains", "abc", "B", "FAILS"],
		"contains: a text and a number": ["contains", "a1", 1, "UNEVALUABLE"],
		"contains: an object": ["contains", {"a": 1}, "a", "UNEVALUABLE"],
		"contains: a number": ["contains", 123, "2", "UNEVALUABLE"],
		"contains: an empty array": ["contains", [], "a", "FAILS"],
		"subset_of: a part": ["subset_of", ["a"], ["a", "b"], "HOLDS"],
		"subset_of: the same, in another order": ["subset_of", ["b", "a"], ["a", "b"], "HOLDS"],
		"subset_of: more often": ["subset_of", ["a", "a"], ["a"], "HOLDS"],
		"subset_of: one too many": ["subset_of", ["a", "c"], ["a", "b"], "FAILS"],
		"subset_of: the empty array": ["subset_of", [], ["a"], "HOLDS"],
		"subset_of: of the empty array": ["subset_of", ["a"], [], "FAILS"],
		"subset_of: numbers": ["subset_of", [1], [1.0, 2], "HOLDS"],
		"subset_of: a number is not its text": ["subset_of", [1], ["1"], "FAILS"],
		"subset_of: a text": ["subset_of", "a", ["a"], "UNEVALUABLE"],
		"subset_of: null": ["subset_of", null, ["a"], "UNEVALUABLE"],
		"subset_of: of a text": ["subset_of", ["a"], "a", "UNEVALUABLE"],
		"an unknown operator": ["like", "a", "a", "UNEVALUABLE"],
	}
	item := {"arguments": {"x": actual}}
	conditions.outcome(testing.condition("/arguments/x", op, expected), item) == outcome
}

# The compiler writes the regular expression of a glob that the registry fixes.
test_compiled_glob[outcome] if {
	some outcome, text in {"HOLDS": "order-1", "FAILS": "order-1:2"}
	condition := object.union(testing.condition("/arguments/x", "glob", "order-*"), {"regex": `^(?s:order-[^:/]*)$`})
	conditions.outcome(condition, {"arguments": {"x": text}}) == outcome
}

# Whatever the operator, a missing value cannot be compared.
test_missing_value_cannot_be_evaluated[op] if {
	some op, expected in {
		"eq": 1,
		"ne": 1,
		"lt": 1,
		"lte": 1,
		"gt": 1,
		"gte": 1,
		"in": [1],
		"not_in": [1],
		"prefix": "a",
		"suffix": "a",
		"glob": "*",
		"contains": "a",
		"subset_of": [1],
	}
	conditions.outcome(testing.condition("/arguments/x", op, expected), {"arguments": {}}) == "UNEVALUABLE"
}

test_presence[name] if {
	some name, [arguments, exists, absent] in {
		"a value": [{"x": {"y": 1}}, "HOLDS", "FAILS"],
		"null exists": [{"x": {"y": null}}, "HOLDS", "FAILS"],
		"false exists": [{"x": {"y": false}}, "HOLDS", "FAILS"],
		"the empty text exists": [{"x": {"y": ""}}, "HOLDS", "FAILS"],
		"a missing leaf": [{"x": {}}, "FAILS", "HOLDS"],
		"a missing parent": [{}, "FAILS", "HOLDS"],
		"a parent that is a text": [{"x": "y"}, "FAILS", "HOLDS"],
		"a parent that is null": [{"x": null}, "FAILS", "HOLDS"],
		"a parent that is an array": [{"x": ["y"]}, "FAILS", "HOLDS"],
		"another case": [{"x": {"Y": 1}}, "FAILS", "HOLDS"],
	}
	item := {"arguments": arguments}
	conditions.outcome(testing.condition_on("/arguments/x/y", "exists"), item) == exists
	conditions.outcome(testing.condition_on("/arguments/x/y", "absent"), item) == absent
}

# The compiler lists both readings of a token that may be an index.
test_numeric_tokens[name] if {
	some name, [tokens, arguments, outcome] in {
		"an index": [[["x", "1"], ["x", 1]], {"x": ["a", "b"]}, "HOLDS"],
		"a key": [[["x", "1"], ["x", 1]], {"x": {"1": "b"}}, "HOLDS"],
		"an index out of range": [[["x", "1"], ["x", 1]], {"x": ["b"]}, "UNEVALUABLE"],
		"another element": [[["x", "0"], ["x", 0]], {"x": ["a", "b"]}, "FAILS"],
		"an index below an index": [
			[["x", "0", "1"], ["x", "0", 1], ["x", 0, "1"], ["x", 0, 1]],
			{"x": [["a", "b"]]},
			"HOLDS",
		],
		"a key below an index": [
			[["x", "0", "1"], ["x", "0", 1], ["x", 0, "1"], ["x", 0, 1]],
			{"x": [{"1": "b"}]},
			"HOLDS",
		],
		"a token with a leading zero is a key alone": [[["x", "01"]], {"x": ["a", "b"]}, "UNEVALUABLE"],
		"a text has no index": [[["x", "0"], ["x", 0]], {"x": "b"}, "UNEVALUABLE"],
	}
	condition := {"op": "eq", "value": "b", "readings": [array.concat(["arguments"], reading) | some reading in tokens]}
	conditions.outcome(condition, {"arguments": arguments}) == outcome
}

test_paths[name] if {
	some name, [path, expected] in {
		"an argument": ["/arguments/order/id", "o-1"],
		"all arguments": ["/arguments", {"order": {"id": "o-1"}}],
		"a context value": ["/context/ip", "10.0.0.1"],
		"the action's name": ["/action/name", "invoke"],
		"a property of the action": ["/action/properties/dry", true],
		"the resource's type": ["/resource/type", "TOOL"],
		"the resource's id": ["/resource/id", "agent:tool:order-lookup"],
		"a property of the resource, as the caller sent it": ["/resource/properties/owner", "mallory"],
		"an attribute of the resource, as the registry has it": ["/resource/attributes/owner", "orders"],
		"the subject's id": ["/subject/id", "alice"],
		"the roles, of the membership and the token": ["/subject/roles", ["auditor", "support"]],
		"a property of the subject, as the caller sent it": ["/subject/properties/region", "us"],
		"an attribute of the subject, as the registry has it": ["/subject/attributes/region", "eu"],
	}
	outcome := conditions.outcome(testing.condition(path, "eq", expected), {
		"resource": {
			"type": "TOOL",
			"id": "agent:tool:order-lookup",
			"properties": {"owner": "mallory"},
			"attributes": {"owner": "mallory"},
		},
		"action": {"name": "invoke", "properties": {"dry": true}},
		"arguments": {"order": {"id": "o-1"}},
		"context": {"ip": "10.0.0.1"},
	}) with data.registry.base as testing.registry
		with input as testing.request_of_acme({"subject": {
			"roles": ["auditor"],
			"properties": {"region": "us"},
			"attributes": {"region": "us"},
		}})
	outcome == "HOLDS"
}

test_paths_of_a_resource_that_is_not_catalogued[path] if {
	some path, outcome in {"/resource/id": "HOLDS", "/resource/attributes/owner": "UNEVALUABLE"}
	item := {"resource": {"type": "TOOL", "id": "x", "properties": {}, "attributes": {"owner": "x"}}}
	actual := conditions.outcome(testing.condition(path, "eq", "x"), item) with data.registry.base as testing.registry
		with input as testing.request
	actual == outcome
}

test_attributes_that_the_caller_makes_up if {
	item := {"resource": {"type": "TOOL", "id": "agent:tool:order-lookup", "attributes": {"tier": "x"}}}
	condition := testing.condition("/resource/attributes/tier", "eq", "x")
	outcome := conditions.outcome(condition, item) with data.registry.base as testing.registry
		with input as testing.request
	outcome == "UNEVALUABLE"
}

test_paths_that_lead_nowhere[path] if {
	some path in [
		"/resource/attributes/owner",
		"/subject/attributes/region",
		"/context/ip",
		"/action/properties/dry",
		"/headers/x",
	]
	item := object.union(testing.request, {"resource": {"id": "agent:tool:nothing"}})
	outcome := conditions.outcome(testing.condition(path, "eq", "x"), item) with data.registry.base as testing.registry
		with input as testing.request
	outcome == "UNEVALUABLE"
}

test_compares_two_paths[name] if {
	some name, [op, arguments, outcome] in {
		"equal": ["eq", {"x": "a", "y": "a"}, "HOLDS"],
		"different": ["eq", {"x": "a", "y": "b"}, "FAILS"],
		"the other one is missing": ["eq", {"x": "a"}, "UNEVALUABLE"],
		"the first one is missing": ["eq", {"y": "a"}, "UNEVALUABLE"],
		"both are missing": ["eq", {}, "UNEVALUABLE"],
		"both are missing, ne": ["ne", {}, "UNEVALUABLE"],
		"both are null": ["eq", {"x": null, "y": null}, "HOLDS"],
		"a list on the other side": ["in", {"x": "a", "y": ["a"]}, "HOLDS"],
		"no list on the other side": ["in", {"x": "a", "y": "a"}, "UNEVALUABLE"],
		"a glob on the other side": ["glob", {"x": "a:b", "y": "a:*"}, "HOLDS"],
		"a glob on the other side that does not match": ["glob", {"x": "b", "y": "a*"}, "FAILS"],
		"a bad glob on the other side": ["glob", {"x": "a", "y": "***"}, "UNEVALUABLE"],
		"an empty glob on the other side": ["glob", {"x": "", "y": ""}, "UNEVALUABLE"],
		"a regular expression on the other side is a plain text": ["glob", {"x": "a", "y": "(a"}, "FAILS"],
	}
	condition := testing.condition_from("/arguments/x", op, "/arguments/y")
	conditions.outcome(condition, {"arguments": arguments}) == outcome
}

test_own_data_alone[name] if {
	some name, [owner, outcome] in {
		"the subject's own": ["alice", "HOLDS"],
		"another's": ["bob", "FAILS"],
		"another case": ["Alice", "FAILS"],
		"a trailing space": ["alice ", "FAILS"],
		"a Cyrillic letter that looks alike": ["\u0430lice", "FAILS"],
		"a list that has it": [["alice"], "FAILS"],
		"null": [null, "FAILS"],
	}
	condition := testing.condition_from("/arguments/ownerId", "eq", "/subject/id")
	actual := conditions.outcome(condition, {"arguments": {"ownerId": owner}}) with input as testing.request
		with data.registry.base as testing.registry
	actual == outcome
}

test_hostile_values[name] if {
	some name, [op, actual, expected, outcome] in {
		"a longer id under a glob of one segment": [
			"glob",
			"agent:tool:order-lookup:admin",
			"agent:tool:order-*",
			"FAILS",
		],
		"an id that looks alike": ["eq", _cyrillic_id, "agent:tool:order-lookup", "FAILS"],
		"a composed and a decomposed letter are two texts": ["eq", "\u00e9", "e\u0301", "FAILS"],
		"an endless repetition is matched in time": ["glob", concat("", ["a" | some _ in numbers.range(1, 2000)]), "a*a*a*a*a*b", "FAILS"],
		"a number beyond a double": ["lte", 1e400, 500, "FAILS"],
		"a number that a double rounds away": ["lte", 500.0000000000000000000001, 500, "FAILS"],
	}
	item := {"arguments": {"x": actual}}
	conditions.outcome(testing.condition("/arguments/x", op, expected), item) == outcome
}

test_deep_arguments if {
	condition := {
		"op": "eq",
		"value": 1,
		"at": array.concat(["arguments"], ["a" | some _ in numbers.range(1, _depth)]),
	}
	conditions.outcome(condition, _deep) == "HOLDS"
}

test_huge_arguments if {
	conditions.outcome(testing.condition("/arguments/ids", "contains", 5000), _huge) == "HOLDS"
}

test_open_arguments[name] if {
	some name, [condition, outcome] in {
		"on arguments": [testing.condition("/arguments/x", "eq", 1), "UNDECIDED"],
		"on the presence of one": [testing.condition_on("/arguments/x", "absent"), "UNDECIDED"],
		"compared with one": [testing.condition_from("/context/x", "eq", "/arguments/x"), "UNDECIDED"],
		"on context": [testing.condition("/context/x", "eq", 1), "HOLDS"],
		"on what is missing elsewhere": [testing.condition("/context/y", "eq", 1), "UNEVALUABLE"],
	}
	conditions.outcome(condition, {"context": {"x": 1}}) == outcome
}

test_in_words[words] if {
	some words, condition in {
		"/arguments/amount lte 500": testing.condition("/arguments/amount", "lte", 500),
		`/context/zone in ["a","b"]`: testing.condition("/context/zone", "in", ["a", "b"]),
		`/arguments/x eq "a"`: testing.condition("/arguments/x", "eq", "a"),
		"/arguments/x eq false": testing.condition("/arguments/x", "eq", false),
		"/arguments/x eq null": testing.condition("/arguments/x", "eq", null),
		"/arguments/x eq the value of /subject/id": testing.condition_from("/arguments/x", "eq", "/subject/id"),
		"/arguments/x exists": testing.condition_on("/arguments/x", "exists"),
		"/arguments/x absent": testing.condition_on("/arguments/x", "absent"),
	}
	conditions.in_words(condition) == words
}

test_explains[name] if {
	some name, [condition, explanation] in {
		"a value that holds": [testing.condition("/arguments/x", "eq", 1), {
			"path": "/arguments/x",
			"op": "eq",
			"outcome": "HOLDS",
			"expected": 1,
			"actual": 1,
		}],
		"a value that is missing": [testing.condition("/arguments/z", "eq", false), {
			"path": "/arguments/z",
			"op": "eq",
			"outcome": "UNEVALUABLE",
			"expected": false,
		}],
		"a null that was found": [testing.condition("/arguments/n", "eq", 1), {
			"path": "/arguments/n",
			"op": "eq",
			"outcome": "FAILS",
			"expected": 1,
			"actual": null,
		}],
		"another path": [testing.condition_from("/arguments/x", "eq", "/arguments/y"), {
			"path": "/arguments/x",
			"op": "eq",
			"outcome": "FAILS",
			"expected": 2,
			"expected_from": "/arguments/y",
			"actual": 1,
		}],
		"another path that leads nowhere": [testing.condition_from("/arguments/x", "eq", "/arguments/z"), {
			"path": "/arguments/x",
			"op": "eq",
			"outcome": "UNEVALUABLE",
			"expected_from": "/arguments/z",
			"actual": 1,
		}],
		"presence": [testing.condition_on("/arguments/x", "absent"), {
			"path": "/arguments/x",
			"op": "absent",
			"outcome": "FAILS",
			"actual": 1,
		}],
	}
	conditions.explain(condition, {"arguments": {"x": 1, "y": 2, "n": null}}) == explanation
}

test_explains_open_arguments if {
	conditions.explain(testing.condition("/arguments/x", "eq", 1), {"context": {}}) == {
		"path": "/arguments/x",
		"op": "eq",
		"outcome": "UNDECIDED",
		"expected": 1,
	}
}
