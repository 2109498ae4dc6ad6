package tenantgate.coalesced_test

import data.tenantgate.coalesced
import data.tenantgate.testing

_decisions(questions) := decisions if {
	decisions := coalesced.decisions with data.registry.base as testing.registry with input as {"questions": questions}
}

_questions := [
	testing.request_of_acme({}),
	testing.request_of_acme({"subject": {"id": "dave"}}),
	testing.request_of_acme({"explain": true}),
	testing.request_with({"tenant": {"id": "initech"}}),
	testing.request_with({"tenant": {"id": ""}}),
	testing.request_of_acme({}),
]

# Nothing of one question reaches another: neither who asks nor what is asked about nor the time.
test_as_if_asked_one_by_one if {
	_decisions(_questions) == [testing.decide_under(testing.registry, question) | some question in _questions]
}

test_they_differ if count({decision.code | some decision in _decisions(_questions)}) == 4

test_no_questions if _decisions([]) == []

# One that cannot be decided leaves the others where they are.
test_null_where_there_is_no_decision[path] if {
	some path in ["/principal", "/scopes", "/action/name", "/arguments", "/resource"]
	malformed := json.remove(_questions[0], [path])
	decisions := _decisions([_questions[0], malformed, {}, "", _questions[3]])
	[decision.code | some decision in decisions; decision] == ["ALLOWED", "TENANT_SUSPENDED"]
	array.slice(decisions, 1, 4) == [null, null, null]
}
