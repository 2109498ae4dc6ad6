# METADATA
# title: Conditions
# description: |
#   A condition compares the value at a path with a fixed value or with the value at another path. Its outcome is a word,
#   never undefined: a condition that cannot be evaluated (missing value, wrong type, bad pattern) must not silently drop
#   out of a rule.
# schemas:
#   - input: schema.input
package tenantgate.conditions

import data.tenantgate.globs
import data.tenantgate.identity
import data.tenantgate.registry

# METADATA
# description: |
#   What became of the condition for the item, in a word: HOLDS, FAILS, UNEVALUABLE, or UNDECIDED when it is about arguments and the
#   item has none to look at yet.
outcome(condition, item) := object.get({true: "HOLDS", false: "FAILS"}, found, found) if found := answer(condition, item)

# METADATA
# description: The same, with `true` for HOLDS and `false` for FAILS.
answer(condition, item) := "UNDECIDED" if {
	not item.arguments
	on_arguments(condition)
} else := _compare(condition.op, object.get(item, condition.at, set()), condition.value) if {
	not condition.regex
} else := regex.match(pattern, actual) if {
	pattern := condition.regex
	actual := _value(condition, item)
	is_string(actual)
} else := found if {
	found := _compare(condition.op, _value(condition, item), _expected(condition, item))
} else := "UNEVALUABLE"

# METADATA
# description: The condition looks at the arguments, on either side.
on_arguments(condition) if _tokens(condition)[0] == "arguments"

on_arguments(condition) if _tokens(condition.from)[0] == "arguments"

# METADATA
# description: The condition in words, as a reason names it. A value that the registry does not fix is named by its path.
in_words(condition) := sprintf("%s %s %s", [_path(condition), condition.op, json.marshal(condition.value)])

in_words(condition) := sprintf("%s %s the value of %s", [_path(condition), condition.op, _path(condition.from)])

in_words(condition) := sprintf("%s %s", [_path(condition), condition.op]) if condition.op in {"absent", "exists"}

# METADATA
# description: The condition as the explanation shows it, with what it expected and what it found, where these are known.
explain(condition, item) := object.union_n([
	{"path": _path(condition), "op": condition.op, "outcome": outcome(condition, item)},
	{"actual": value | value := _known(condition, item)},
	{"expected": condition.value | true},
	{"expected": value | value := _known(condition.from, item)},
	{"expected_from": _path(condition.from) | true},
])

# A JSON Pointer again.
_path(side) := concat("", [sprintf("/%s", [replace(replace(token, "~", "~0"), "/", "~1")]) | some token in _tokens(side)])

# The first reading of a path has all its tokens as texts.
_tokens(side) := side.at

_tokens(side) := side.readings[0]

_known(side, item) := value if {
	value := _value(side, item)
	value != set()
}

# The value at the path, or a set where there is none: that is no JSON value, so it cannot be confused with one.
_value(side, item) := object.get(item, side.at, set())

# A numeric token of a path is an object's key or an array's index: where there are any, the compiler lists all readings.
_value(side, item) := found if {
	found := [value |
		some reading in side.readings
		value := object.get(_seen(reading[0], item), reading, set())
		value != set()
	][0]
} else := set() if {
	side.readings
}

_expected(condition, item) := value if {
	value := condition.value
} else := _value(condition.from, item) if {
	condition.from
} else := set()

# Where a path begins: in the item, but for what the registry knows beside it.
_seen("subject", _) := {"subject": identity.subject}

_seen("resource", item) := {"resource": object.union(
	object.remove(item.resource, ["attributes"]),
	{"attributes": _attributes(item.resource)},
)}

_seen(root, item) := item if {
	root != "subject"
	root != "resource"
}

_attributes(resource) := attributes if {
	attributes := registry.resource(resource.type, resource.id).attributes
} else := {}

# What an operator says of two values; undefined for values that it cannot compare.
_compare("exists", actual, _) := actual != set()

_compare("absent", actual, _) := actual == set()

_compare("eq", actual, expected) := actual == expected if _both_found(actual, expected)

_compare("ne", actual, expected) := actual != expected if _both_found(actual, expected)

_compare("lt", actual, expected) := actual < expected if _ordered(actual, expected)

_compare("lte", actual, expected) := actual <= expected if _ordered(actual, expected)

_compare("gt", actual, expected) := actual > expected if _ordered(actual, expected)

_compare("gte", actual, expected) := actual >= expected if _ordered(actual, expected)

_compare("in", actual, expected) := _member(actual, expected) if _both_found(actual, expected)

_compare("not_in", actual, expected) := _member(actual, expected) == false if _both_found(actual, expected)

_compare("prefix", actual, expected) := startswith(actual, expected) if _strings(actual, expected)

_compare("suffix", actual, expected) := endswith(actual, expected) if _strings(actual, expected)

_compare("glob", actual, expected) := regex.match(globs.to_regex(expected), actual) if _strings(actual, expected)

_compare("contains", actual, expected) := contains(actual, expected) if _strings(actual, expected)

_compare("contains", actual, expected) := _member(expected, actual) if _both_found(actual, expected)

_compare("subset_of", actual, expected) := subset if {
	is_array(actual)
	is_array(expected)
	subset := count({v | some v in actual} - {v | some v in expected}) == 0
}

_member(element, list) := element in list if is_array(list)

_both_found(actual, expected) if {
	actual != set()
	expected != set()
}

_strings(actual, expected) if {
	is_string(actual)
	is_string(expected)
}

_ordered(actual, expected) if {
	is_number(actual)
	is_number(expected)
} else if {
	_strings(actual, expected)
}
