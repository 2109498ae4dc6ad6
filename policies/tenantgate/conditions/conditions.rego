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
#   What became of the condition for the item: HOLDS, FAILS, UNEVALUABLE, or UNDECIDED when it is about arguments and the item
#   has none to look at yet.
outcome(condition, item) := "UNDECIDED" if {
	not item.arguments
	on_arguments(condition)
} else := _word[result] if {
	result := _compare(condition.op, condition, _value(condition, item), _expected(condition, item))
} else := "UNEVALUABLE"

_word := {true: "HOLDS", false: "FAILS"}

# METADATA
# description: The condition looks at the arguments, on either side.
on_arguments(condition) if condition.root == "arguments"

on_arguments(condition) if condition.from.root == "arguments"

# METADATA
# description: The condition in words, as a reason names it. A value that the registry does not fix is named by its path.
in_words(condition) := sprintf("%s %s %s", [condition.path, condition.op, json.marshal(condition.value)])

in_words(condition) := sprintf("%s %s the value of %s", [condition.path, condition.op, condition.from.path])

in_words(condition) := sprintf("%s %s", [condition.path, condition.op]) if condition.op in {"absent", "exists"}

# METADATA
# description: The condition as the explanation shows it, with what it expected and what it found, where these are known.
explain(condition, item) := object.union_n([
	{"path": condition.path, "op": condition.op, "outcome": outcome(condition, item)},
	{"actual": value | value := _known(condition, item)},
	{"expected": condition.value | true},
	{"expected": value | value := _known(condition.from, item)},
	{"expected_from": condition.from.path | true},
])

_known(side, item) := value if {
	value := _value(side, item)
	value != _missing
}

# A set is no JSON value, so it cannot be confused with one.
_missing := {"missing"}

# A numeric token of a path is an object's key or an array's index: where there are any, the compiler lists all readings.
_value(side, item) := object.get(item[side.root], side.tokens[0], _missing) if {
	side.root in _roots_of_the_item
	count(side.tokens) == 1
} else := found[0] if {
	found := [value |
		some tokens in side.tokens
		value := object.get(_root(side.root, item), tokens, _missing)
		value != _missing
	]
} else := _missing

_expected(condition, item) := value if {
	value := condition.value
} else := _value(condition.from, item) if {
	condition.from
} else := _missing

_roots_of_the_item := {"action", "arguments", "context"}

_root(name, item) := item[name] if name in _roots_of_the_item

_root("resource", item) := object.union(
	object.remove(item.resource, ["attributes"]),
	{"attributes": _attributes(item.resource)},
)

_root("subject", _) := identity.subject

_attributes(resource) := attributes if {
	attributes := registry.resource(resource.type, resource.id).attributes
} else := {}

_compare("exists", _, actual, _) := actual != _missing

_compare("absent", _, actual, _) := actual == _missing

_compare("eq", _, actual, expected) := actual == expected if _both_found(actual, expected)

_compare("ne", _, actual, expected) := actual != expected if _both_found(actual, expected)

_compare("lt", _, actual, expected) := actual < expected if _ordered(actual, expected)

_compare("lte", _, actual, expected) := actual <= expected if _ordered(actual, expected)

_compare("gt", _, actual, expected) := actual > expected if _ordered(actual, expected)

_compare("gte", _, actual, expected) := actual >= expected if _ordered(actual, expected)

_compare("in", _, actual, expected) := _member(actual, expected) if _both_found(actual, expected)

_compare("not_in", _, actual, expected) := _member(actual, expected) == false if _both_found(actual, expected)

_compare("prefix", _, actual, expected) := startswith(actual, expected) if _strings(actual, expected)

_compare("suffix", _, actual, expected) := endswith(actual, expected) if _strings(actual, expected)

_compare("glob", condition, actual, expected) := regex.match(_regex(condition, expected), actual) if {
	_strings(actual, expected)
}

_compare("contains", _, actual, expected) := contains(actual, expected) if _strings(actual, expected)

_compare("contains", _, actual, expected) := _member(expected, actual) if _both_found(actual, expected)

_compare("subset_of", _, actual, expected) := subset if {
	is_array(actual)
	is_array(expected)
	subset := count({v | some v in actual} - {v | some v in expected}) == 0
}

_member(element, list) := element in list if is_array(list)

_both_found(actual, expected) if {
	actual != _missing
	expected != _missing
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

_regex(condition, _) := condition.regex

_regex(condition, glob) := globs.to_regex(glob) if not condition.regex
