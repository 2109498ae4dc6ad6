package tenantgate.search_test

import data.tenantgate.search
import data.tenantgate.testing

_from_the_beginning := {"after": "", "most": 100, "prefix": "", "properties": {}}

_asked(changes) := testing.request_with(object.union({"search": _from_the_beginning, "subject": {"id": ""}}, changes))

_of_acme(changes) := _asked(object.union({"tenant": {"id": "acme"}}, changes))

_about(type, id) := {"resource": {"type": type, "id": id}}

_subjects(compiled, asked) := answer if {
	answer := search.subjects with data.registry.base as compiled with input as asked
}

_resources(compiled, asked) := answer if {
	answer := search.resources with data.registry.base as compiled with input as asked
}

_actions(compiled, asked) := answer if {
	answer := search.actions with data.registry.base as compiled with input as asked
}

_about_them(effect, subjects) := testing.rule(effect, effect, {"narrowing": ["subjects"], "subjects": subjects})

test_subjects[name] if {
	globex := {"tenant": {"id": "globex"}}
	some name, tc in {
		"members, and none whose membership is suspended": [testing.registry, _of_acme({}), ["alice", "bob"]],
		"members whose membership lists the policy": [
			testing.registry,
			_of_acme(object.union(_about("MEMORY", "m"), {"scopes": []})),
			["alice"],
		],
		"nobody": [testing.registry, _of_acme(_about("TOOL", "agent:tool:admin-refund")), []],
		"none that is the agent itself": [
			testing.registry_of([_about_them("ALLOW", {"users": ["alice", "bob"]})]),
			_asked({"principal": {"id": "alice"}}),
			["bob"],
		],
		"those whom rules name, where nobody is a member": [
			testing.registry_of([_about_them("ALLOW", {"users": ["zoe", "adam"]})]),
			_asked(globex),
			["adam", "zoe"],
		],
		"none whom a rule denies": [
			testing.registry_of([testing.rule("r", "ALLOW", {}), _about_them("DENY", {"users": ["adam"]})]),
			_asked(globex),
			[],
		],
		"none of a tenant that is suspended": [testing.registry, _asked({"tenant": {"id": "initech"}}), []],
		"none of another tenant": [testing.registry, _asked({"resource": {"id": "agent:tool:order-cancel"}}), []],
		"none of no tenant": [testing.registry, _asked({"tenant": {"id": "nobody"}}), []],
		"none where two tenants are named": [testing.registry, _of_acme({"tenant": {"named": ["globex"]}}), []],
		"those of a prefix": [testing.registry, _of_acme({"search": {"prefix": "b"}}), ["bob"]],
	}
	_subjects(tc[0], tc[1]).found == tc[2]
}

# Roles and the word of who may act are the token's, and about its subject alone; properties are said of everybody.
test_what_a_token_says_holds_for_its_subject_alone[name] if {
	named := _about_them("ALLOW", {"users": ["alice", "bob"]})
	of_role := _about_them("DENY", {"roles": ["contractor"]})
	sent := testing.rule("d", "DENY", {"conditions": [testing.condition("/subject/properties/mfa", "ne", true)]})
	some name, tc in {
		"roles": [[named, of_role], {"id": "alice", "roles": ["contractor"]}, {}, ["bob"]],
		"roles of nobody who is found": [[named, of_role], {"id": "carol", "roles": ["contractor"]}, {}, ["alice", "bob"]],
		"who may act": [[named], {"id": "alice"}, {"may_act": ["agent:other"]}, ["bob"]],
		"its own properties": [[named, sent], {"id": "alice", "properties": {"mfa": true}}, {}, ["alice"]],
		"properties of all others": [
			[named, sent],
			{"id": "alice", "properties": {"mfa": false}},
			{"search": {"properties": {"mfa": true}}},
			["bob"],
		],
	}
	_subjects(testing.registry_of(tc[0]), _asked(object.union(tc[2], {"subject": tc[1]}))).found == tc[3]
}

_all_tools := ["agent:tool:order-cancel", "agent:tool:order-export", "agent:tool:order-lookup"]

test_resources[name] if {
	alice := {"subject": {"id": "alice"}, "scopes": ["tools:read", "tools:write"]}
	open := testing.registry_of([testing.rule("r", "ALLOW", {})])
	some name, tc in {
		"of both catalogues and of rules": [testing.registry, _of_acme(alice), _all_tools],
		"an id that is asked about does not count": [
			testing.registry,
			_of_acme(object.union(alice, _about("TOOL", "agent:tool:admin-refund"))),
			_all_tools,
		],
		"those that the scopes reach": [
			testing.registry,
			_of_acme(object.union(alice, {"scopes": ["tools:read"]})),
			["agent:tool:order-lookup"],
		],
		"none for somebody else": [testing.registry, _of_acme({"subject": {"id": "dave"}}), []],
		"none of a type that there is not": [testing.registry, _of_acme(object.union(alice, _about("MODEL", "m"))), []],
		"none of another tenant": [open, _asked(alice), ["agent:tool:order-lookup"]],
	}
	_resources(tc[0], tc[1]).found == tc[2]
}

test_properties_of_the_resource_hold_for_all if {
	closed := testing.rule("d", "DENY", {"conditions": [testing.condition("/resource/properties/state", "eq", "closed")]})
	compiled := testing.registry_of([testing.rule("r", "ALLOW", {}), closed])
	found := {state: _resources(compiled, _asked({"resource": {"properties": {"state": state}}})).found |
		some state in ["closed", "open"]
	}
	found == {"closed": [], "open": ["agent:tool:order-lookup"]}
}

test_actions[name] if {
	read := testing.rule("a", "ALLOW", {"actions": ["read", "list"], "narrowing": ["actions"]})
	no_list := testing.rule("b", "DENY", {"actions": ["list", "drop"], "narrowing": ["actions"]})
	any := testing.rule("c", "ALLOW", {})
	some name, tc in {
		"those that rules allow": [[read], ["list", "read"]],
		"none that a rule denies": [[read, no_list], ["read"]],
		"any, of which one has a name": [[any], ["invoke"]],
		"any, and those that others name": [[any, no_list], ["invoke"]],
		"none": [[], []],
	}
	_actions(testing.registry_of(tc[0]), _asked({"action": {"name": "drop"}})).found == tc[1]
}

# Whatever the size of a page, all of them come once, in order.
test_pages[name] if {
	users := ["a", "b", "c", "d", "e"]
	compiled := testing.registry_of([
		_about_them("ALLOW", {"users": users}),
		_about_them("DENY", {"users": ["b"]}),
	])
	some name, tc in {
		"the first": ["", 2, ["a"], "b"],
		"the next": ["b", 2, ["c", "d"], "d"],
		"the last": ["d", 2, ["e"], ""],
		"one that ends with the last": ["c", 2, ["d", "e"], ""],
		"behind the last": ["e", 2, [], ""],
		"behind one that is gone": ["bb", 2, ["c", "d"], "d"],
		"all": ["", 5, ["a", "c", "d", "e"], ""],
	}
	answer := _subjects(compiled, _asked({"search": {"after": tc[0], "most": tc[1]}}))
	[answer.found, answer.next] == [tc[2], tc[3]]
}

test_the_state_of_the_registry_is_told if {
	answer := _resources(testing.registry, _of_acme({}))
	testing.has(answer, {"as_of": 1767323045000000, "max_staleness_seconds": 900})
}

test_every_result_is_what_a_decision_on_it_says if {
	asked := _of_acme({"subject": {"id": "bob"}})
	found := _resources(testing.registry, asked).found
	found == [id |
		some id in ["agent:tool:admin-refund", "agent:tool:order-cancel", "agent:tool:order-export", "agent:tool:order-lookup"]
		single := json.remove(object.union(asked, {"resource": {"id": id}}), ["/search"])
		testing.decide_under(testing.registry, single).effect == "ALLOW"
	]
}

# What cannot be decided is no result, and nothing is said of the rest.
test_no_answer_to_a_malformed_question[path] if {
	some path in ["/action/name", "/arguments", "/scopes", "/search/most"]
	not _resources(testing.registry, json.remove(_of_acme({"subject": {"id": "alice"}}), [path]))
}
