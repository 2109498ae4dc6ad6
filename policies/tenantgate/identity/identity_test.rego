package tenantgate.identity_test

import data.tenantgate.identity
import data.tenantgate.testing

_acme_optional := testing.registry_with("acme", {"terms": {"membership": "OPTIONAL"}})

_current := {"settings": {"delegation": {"check": "current"}}}

_by(principal, scopes, delegation) := {
	"principal": {"id": principal},
	"scopes": scopes,
	"delegation": delegation,
}

_hop(id, scopes) := {"id": id, "scopes": scopes}

test_nobody_is_refused[name] if {
	some name, asked in {
		"a member through an agent": testing.request_of_acme({}),
		"a tenant named rightly": testing.request_of_acme({"tenant": {"named": ["acme", "acme"]}}),
		"no tenant named": testing.request_of_acme({"tenant": {"named": []}}),
		"a tenant that keeps nothing": testing.request_with({"subject": {"id": "anyone"}}),
		"no subject, where nobody need be a member": testing.request_with({"subject": {"id": ""}}),
		"a chain that narrows": testing.request_of_acme(_by(
			"agent:report-bot",
			["tools:read"],
			[_hop("agent:order-bot", ["tools:read", "tools:write"])],
		)),
		"a chain that hands on the same": testing.request_of_acme(_by(
			"agent:report-bot",
			["tools:read"],
			[_hop("agent:order-bot", ["tools:read"])],
		)),
		"a hop that declares no scopes hands on": testing.request_of_acme(_by(
			"agent:order-bot",
			["tools:read"],
			[{"id": "agent:report-bot"}, _hop("agent:order-bot", ["tools:read"])],
		)),
		"a chain in which nobody declares scopes": testing.request_of_acme(_by(
			"agent:order-bot",
			["x"],
			[{"id": "agent:report-bot"}],
		)),
		"a chain as long as the limit": testing.request_of_acme(_by(
			"agent:order-bot",
			[],
			[_hop("agent:order-bot", []) | some _ in numbers.range(1, 3)],
		)),
		"an agent that is called back": testing.request_of_acme(_by(
			"agent:order-bot",
			["tools:read"],
			[_hop("agent:report-bot", ["tools:read"]), _hop("agent:order-bot", ["tools:read", "tools:write"])],
		)),
		"an agent that the subject lets act": testing.request_of_acme({"may_act": ["agent:order-bot"]}),
		"one of the agents that the subject lets act": testing.request_with({"may_act": ["agent:x", "agent:order-bot"]}),
		"an agent that the subject lets act, through one that it does not name": testing.request_of_acme(object.union(
			_by("agent:order-bot", [], [_hop("agent:report-bot", [])]),
			{"may_act": ["agent:order-bot"]},
		)),
		"an earlier actor that is the subject, where the current one alone counts": testing.request_with(object.union(
			_by("agent:order-bot", [], [_hop("alice", [])]),
			_current,
		)),
		"an unknown earlier actor, where the current one alone counts": testing.request_of_acme(object.union(
			_by("agent:order-bot", [], [_hop("agent:stranger", [])]),
			_current,
		)),
		"a suspended earlier actor, where the current one alone counts": testing.request_of_acme(object.union(
			_by("agent:order-bot", [], [_hop("agent:old-bot", [])]),
			_current,
		)),
		"a principal that widens, where the current one alone counts": testing.request_of_acme(object.union(
			_by("agent:order-bot", ["tools:write"], [_hop("agent:report-bot", ["tools:read"])]),
			_current,
		)),
		"an unknown actor, where the tenant keeps no agents": testing.request_with(_by("agent:stranger", [], [_hop("agent:other", [])])),
	}
	denials := identity.denials with data.registry.base as testing.registry with input as asked
	denials == []
}

test_a_row_denies[name] if {
	some name, [code, reason, asked] in {
		"another tenant named": [
			"TENANT_MISMATCH",
			`the request names tenant "globex", the caller belongs to tenant "acme"`,
			testing.request_of_acme({"tenant": {"named": ["globex"]}}),
		],
		"another tenant named after the right one": [
			"TENANT_MISMATCH",
			`the request names tenant "globex", the caller belongs to tenant "acme"`,
			testing.request_of_acme({"tenant": {"named": ["acme", "globex"]}}),
		],
		"the tenant named in another case": [
			"TENANT_MISMATCH",
			`the request names tenant "ACME", the caller belongs to tenant "acme"`,
			testing.request_of_acme({"tenant": {"named": ["ACME"]}}),
		],
		"the tenant named with a trailing space": [
			"TENANT_MISMATCH",
			`the request names tenant "acme ", the caller belongs to tenant "acme"`,
			testing.request_of_acme({"tenant": {"named": ["acme "]}}),
		],
		"an empty tenant named": [
			"TENANT_MISMATCH",
			`the request names tenant "", the caller belongs to tenant "acme"`,
			testing.request_of_acme({"tenant": {"named": [""]}}),
		],
		"an unknown tenant": [
			"TENANT_UNKNOWN",
			`the registry has no tenant "nobody"`,
			testing.request_with({"tenant": {"id": "nobody"}}),
		],
		"a tenant in another case": [
			"TENANT_UNKNOWN",
			`the registry has no tenant "Globex"`,
			testing.request_with({"tenant": {"id": "Globex"}}),
		],
		"a tenant that looks alike": [
			"TENANT_UNKNOWN",
			"the registry has no tenant \"gl\u043ebex\"",
			testing.request_with({"tenant": {"id": "gl\u043ebex"}}),
		],
		"a star for a tenant": [
			"TENANT_UNKNOWN",
			`the registry has no tenant "*"`,
			testing.request_with({"tenant": {"id": "*"}}),
		],
		"no tenant": [
			"TENANT_UNKNOWN",
			`the registry has no tenant ""`,
			testing.request_with({"tenant": {"id": ""}}),
		],
		"a suspended tenant": [
			"TENANT_SUSPENDED",
			`tenant "initech" is suspended`,
			testing.request_with({"tenant": {"id": "initech"}}),
		],
		"no principal": [
			"IMPERSONATION",
			"no principal: an agent must act as itself, for the subject",
			testing.request_with({"principal": {"id": ""}}),
		],
		"neither principal nor subject": [
			"IMPERSONATION",
			"no principal: an agent must act as itself, for the subject",
			testing.request_with({"principal": {"id": ""}, "subject": {"id": ""}}),
		],
		"the principal is the subject": [
			"IMPERSONATION",
			`principal "alice" is the subject itself: an agent must act for the subject, not as it`,
			testing.request_with({"principal": {"id": "alice"}}),
		],
		"an earlier actor is the subject": [
			"IMPERSONATION",
			`actor "alice" (hop 1) is the subject itself: an agent must act for the subject, not as it`,
			testing.request_with(_by("agent:order-bot", [], [_hop("alice", [])])),
		],
		"the outermost of the earlier actors that are the subject is named": [
			"IMPERSONATION",
			`actor "alice" (hop 2) is the subject itself: an agent must act for the subject, not as it`,
			testing.request_with(_by("a", [], [_hop("b", []), _hop("alice", []), _hop("alice", [])])),
		],
		"a principal that the subject does not let act": [
			"DELEGATION_INVALID",
			`the subject lets "agent:report-bot" act for it, not principal "agent:order-bot"`,
			testing.request_of_acme({"may_act": ["agent:report-bot"]}),
		],
		"a principal that the subject does not let act, where it lets several": [
			"DELEGATION_INVALID",
			`the subject lets "agent:report-bot", "agent:x" act for it, not principal "agent:order-bot"`,
			testing.request_with({"may_act": ["agent:report-bot", "agent:x"]}),
		],
		"a principal that the subject does not let act, where the current one alone counts": [
			"DELEGATION_INVALID",
			`the subject lets "agent:report-bot" act for it, not principal "agent:order-bot"`,
			testing.request_of_acme(object.union({"may_act": ["agent:report-bot"]}, _current)),
		],
		"a principal that the subject does not let act, behind an earlier actor that it does": [
			"DELEGATION_INVALID",
			`the subject lets "agent:report-bot" act for it, not principal "agent:order-bot"`,
			testing.request_of_acme(object.union(
				_by("agent:order-bot", [], [_hop("agent:report-bot", [])]),
				{"may_act": ["agent:report-bot"]},
			)),
		],
		"an agent in another case than the one that the subject lets act": [
			"DELEGATION_INVALID",
			`the subject lets "agent:Order-Bot" act for it, not principal "agent:order-bot"`,
			testing.request_with({"may_act": ["agent:Order-Bot"]}),
		],
		"a star that the subject lets act": [
			"DELEGATION_INVALID",
			`the subject lets "*" act for it, not principal "agent:order-bot"`,
			testing.request_with({"may_act": ["*"]}),
		],
		"a subject that lets nobody act": [
			"DELEGATION_INVALID",
			`the subject lets nobody act for it, not principal "agent:order-bot"`,
			testing.request_with({"may_act": []}),
		],
		"an unknown principal": [
			"DELEGATION_INVALID",
			`principal "agent:stranger" is not an agent of the tenant`,
			testing.request_of_acme({"principal": {"id": "agent:stranger"}}),
		],
		"a principal in another case": [
			"DELEGATION_INVALID",
			`principal "agent:Order-Bot" is not an agent of the tenant`,
			testing.request_of_acme({"principal": {"id": "agent:Order-Bot"}}),
		],
		"a star for a principal": [
			"DELEGATION_INVALID",
			`principal "agent:*" is not an agent of the tenant`,
			testing.request_of_acme({"principal": {"id": "agent:*"}}),
		],
		"a suspended principal": [
			"DELEGATION_INVALID",
			`principal "agent:old-bot" is suspended`,
			testing.request_of_acme({"principal": {"id": "agent:old-bot"}}),
		],
		"a suspended principal, where the current one alone counts": [
			"DELEGATION_INVALID",
			`principal "agent:old-bot" is suspended`,
			testing.request_of_acme(object.union({"principal": {"id": "agent:old-bot"}}, _current)),
		],
		"an unknown principal, where the current one alone counts": [
			"DELEGATION_INVALID",
			`principal "agent:stranger" is not an agent of the tenant`,
			testing.request_of_acme(object.union({"principal": {"id": "agent:stranger"}}, _current)),
		],
		"an unknown hop": [
			"DELEGATION_INVALID",
			`actor "agent:stranger" (hop 1) is not an agent of the tenant`,
			testing.request_of_acme(_by("agent:order-bot", [], [_hop("agent:stranger", [])])),
		],
		"a hop with an empty id": [
			"DELEGATION_INVALID",
			`actor "" (hop 1) is not an agent of the tenant`,
			testing.request_of_acme(_by("agent:order-bot", [], [_hop("", [])])),
		],
		"a suspended hop behind a good one": [
			"DELEGATION_INVALID",
			`actor "agent:old-bot" (hop 2) is suspended`,
			testing.request_of_acme(_by("agent:order-bot", [], [_hop("agent:report-bot", []), _hop("agent:old-bot", [])])),
		],
		"a principal that widens": [
			"DELEGATION_INVALID",
			`principal "agent:order-bot" holds scopes that actor "agent:report-bot" (hop 1) before it does not: tools:write`,
			testing.request_of_acme(_by("agent:order-bot", ["tools:read", "tools:write"], [_hop("agent:report-bot", ["tools:read"])])),
		],
		"a principal that widens, where the tenant keeps no agents": [
			"DELEGATION_INVALID",
			`principal "a" holds scopes that actor "b" (hop 1) before it does not: x, y`,
			testing.request_with(_by("a", ["y", "x"], [_hop("b", [])])),
		],
		"a hop that widens": [
			"DELEGATION_INVALID",
			`actor "agent:report-bot" (hop 1) holds scopes that actor "agent:order-bot" (hop 2) before it does not: tools:write`,
			testing.request_of_acme(_by("agent:order-bot", ["tools:read"], [
				_hop("agent:report-bot", ["tools:read", "tools:write"]),
				_hop("agent:order-bot", ["tools:read"]),
			])),
		],
		"a principal that widens past a hop that declares no scopes": [
			"DELEGATION_INVALID",
			`principal "agent:order-bot" holds scopes that actor "agent:order-bot" (hop 2) before it does not: tools:write`,
			testing.request_of_acme(_by("agent:order-bot", ["tools:write"], [
				{"id": "agent:report-bot"},
				_hop("agent:order-bot", ["tools:read"]),
			])),
		],
		"a principal that widens past a narrower hop, back to what an earlier one had": [
			"DELEGATION_INVALID",
			`principal "agent:order-bot" holds scopes that actor "agent:report-bot" (hop 1) before it does not: tools:write`,
			testing.request_of_acme(_by("agent:order-bot", ["tools:write"], [
				_hop("agent:report-bot", ["tools:read"]),
				_hop("agent:order-bot", ["tools:read", "tools:write"]),
			])),
		],
		"a chain over the limit": [
			"DELEGATION_INVALID",
			"the delegation chain has 4 actors, the limit is 3",
			testing.request_with({"delegation": [{"id": "a"} | some _ in numbers.range(1, 4)]}),
		],
		"a chain over the limit, where the current one alone counts": [
			"DELEGATION_INVALID",
			"the delegation chain has 4 actors, the limit is 3",
			testing.request_with(object.union({"delegation": [{"id": "a"} | some _ in numbers.range(1, 4)]}, _current)),
		],
		"no member": [
			"SUBJECT_NOT_MEMBER",
			`subject "dave" is not a member of tenant "acme"`,
			testing.request_of_acme({"subject": {"id": "dave"}}),
		],
		"a member in another case": [
			"SUBJECT_NOT_MEMBER",
			`subject "Alice" is not a member of tenant "acme"`,
			testing.request_of_acme({"subject": {"id": "Alice"}}),
		],
		"no subject, where only members may": [
			"SUBJECT_NOT_MEMBER",
			`subject "" is not a member of tenant "acme"`,
			testing.request_of_acme({"subject": {"id": ""}}),
		],
		"a suspended member": [
			"SUBJECT_NOT_MEMBER",
			`the membership of subject "carol" in tenant "acme" is suspended`,
			testing.request_of_acme({"subject": {"id": "carol"}}),
		],
	}
	denials := identity.denials with data.registry.base as testing.registry with input as asked
	denials == [{"code": code, "reason": reason}]
}

# Each case breaks all rows from one on; those that cannot be broken together are in cases of their own.
test_rows_in_order[name] if {
	some name, [codes, asked] in {
		"from a mismatch on, in an unknown tenant": [
			["TENANT_MISMATCH", "TENANT_UNKNOWN", "IMPERSONATION", "DELEGATION_INVALID"],
			testing.request_with({
				"tenant": {"id": "nobody", "named": ["acme"]},
				"principal": {"id": ""},
				"delegation": [{"id": "a"} | some _ in numbers.range(1, 4)],
			}),
		],
		"a mismatch, in a suspended tenant": [
			["TENANT_MISMATCH", "TENANT_SUSPENDED"],
			testing.request_with({"tenant": {"id": "initech", "named": ["acme"]}}),
		],
		"from impersonation on": [
			["IMPERSONATION", "DELEGATION_INVALID", "SUBJECT_NOT_MEMBER"],
			testing.request_of_acme({"principal": {"id": "dave"}, "subject": {"id": "dave"}}),
		],
		"from delegation on": [
			["DELEGATION_INVALID", "SUBJECT_NOT_MEMBER"],
			testing.request_of_acme({"principal": {"id": "agent:old-bot"}, "subject": {"id": "carol"}}),
		],
	}
	denials := identity.denials with data.registry.base as testing.registry with input as asked
	[row.code | some row in denials] == codes
}

test_the_first_fault_of_a_chain_is_named[name] if {
	some name, [fault, asked] in {
		"its length before its actors": [
			"the delegation chain has 4 actors, the limit is 3",
			testing.request_of_acme(_by("agent:stranger", [], [_hop("agent:old-bot", []) | some _ in numbers.range(1, 4)])),
		],
		"whom the subject lets act before the actors": [
			`the subject lets "agent:order-bot" act for it, not principal "agent:stranger"`,
			testing.request_of_acme({"principal": {"id": "agent:stranger"}, "may_act": ["agent:order-bot"]}),
		],
		"the principal before its hops": [
			`principal "agent:stranger" is not an agent of the tenant`,
			testing.request_of_acme(_by("agent:stranger", [], [_hop("agent:old-bot", [])])),
		],
		"a suspension before scopes": [
			`principal "agent:old-bot" is suspended`,
			testing.request_of_acme(_by("agent:old-bot", ["x"], [_hop("agent:order-bot", [])])),
		],
	}
	denials := identity.denials with data.registry.base as testing.registry with input as asked
	[row.reason | some row in denials] == [fault]
}

test_effective_scopes[name] if {
	some name, [scopes, asked] in {
		"what is asked for, where the tenant keeps no agents": [
			{"a", "b"},
			testing.request_with({"scopes": ["b", "a", "b"]}),
		],
		"none": [set(), testing.request_of_acme({"scopes": []})],
		"cut by what the principal may hold": [
			{"tools:read"},
			testing.request_of_acme({"scopes": ["tools:read", "admin"]}),
		],
		"cut by what an earlier actor may hold": [
			{"tools:read"},
			testing.request_of_acme(_by("agent:order-bot", ["tools:read", "tools:write"], [{"id": "agent:report-bot"}])),
		],
		"not cut by an earlier actor, where the current one alone counts": [
			{"tools:read", "tools:write"},
			testing.request_of_acme(object.union(
				_by("agent:order-bot", ["tools:read", "tools:write"], [{"id": "agent:report-bot"}]),
				_current,
			)),
		],
		"none through an unknown actor": [
			set(),
			testing.request_of_acme(_by("agent:order-bot", ["tools:read"], [{"id": "agent:stranger"}])),
		],
		"none of an unknown principal": [set(), testing.request_of_acme({"principal": {"id": "agent:stranger"}})],
		"none of an unknown principal, where the current one alone counts": [
			set(),
			testing.request_of_acme(object.union({"principal": {"id": "agent:stranger"}}, _current)),
		],
	}
	effective := identity.effective_scopes with data.registry.base as testing.registry with input as asked
	effective == scopes
}

# Nobody is named who lacks nothing.
test_weakest_hop[name] if {
	some name, [hops, asked] in {
		"nobody, where the tenant keeps no agents": [[], testing.request_with(_by("a", ["x"], [{"id": "b"}]))],
		"nobody, where all hold all": [[], testing.request_of_acme(_by(
			"agent:order-bot",
			["tools:read"],
			[{"id": "agent:report-bot"}, _hop("agent:order-bot", ["tools:read", "tools:write"])],
		))],
		"nobody, where nothing was delegated": [[], testing.request_of_acme({"principal": {"id": "agent:stranger"}, "scopes": []})],
		"the principal": [
			[{"id": "agent:report-bot", "hop": 0, "lacks": ["memory:read", "tools:write"]}],
			testing.request_of_acme(_by("agent:report-bot", ["tools:write", "tools:read", "memory:read"], [])),
		],
		"an earlier actor, by what the tenant lets it hold": [
			[{"id": "agent:report-bot", "hop": 1, "lacks": ["tools:write"]}],
			testing.request_of_acme(_by("agent:order-bot", ["tools:read", "tools:write"], [{"id": "agent:report-bot"}])),
		],
		"an earlier actor, by what it declares": [
			[{"id": "b", "hop": 2, "lacks": ["y"]}],
			testing.request_with(_by("a", ["x", "y"], [{"id": "c"}, _hop("b", ["x", "z"])])),
		],
		"an earlier actor that declares more than the tenant lets it hold": [
			[{"id": "agent:report-bot", "hop": 1, "lacks": ["tools:write"]}],
			testing.request_of_acme(_by("agent:order-bot", ["tools:write"], [_hop("agent:report-bot", ["tools:write"])])),
		],
		"the one that lacks most": [
			[{"id": "agent:report-bot", "hop": 2, "lacks": ["admin", "tools:write"]}],
			testing.request_of_acme(_by(
				"agent:order-bot",
				["tools:read", "tools:write", "admin"],
				[{"id": "agent:order-bot"}, {"id": "agent:report-bot"}],
			)),
		],
		"the first of those that lack alike": [
			[{"id": "agent:order-bot", "hop": 0, "lacks": ["x"]}],
			testing.request_of_acme(_by("agent:order-bot", ["x"], [{"id": "agent:report-bot"}, {"id": "agent:order-bot"}])),
		],
		"an actor that the tenant does not list": [
			[{"id": "agent:stranger", "hop": 1, "lacks": ["tools:read"]}],
			testing.request_of_acme(_by("agent:order-bot", ["tools:read"], [{"id": "agent:stranger"}])),
		],
		"nobody earlier, where the current one alone counts": [[], testing.request_of_acme(object.union(
			_by("agent:order-bot", ["tools:read", "tools:write"], [{"id": "agent:report-bot"}]),
			_current,
		))],
	}
	weakest := [hop | hop := identity.weakest_hop] with data.registry.base as testing.registry with input as asked
	weakest == hops
}

test_subject[name] if {
	some name, [compiled, sent, seen] in {
		"the registry's and the caller's side by side": [
			testing.registry,
			{"id": "alice", "roles": ["auditor"], "properties": {"region": "us"}},
			{
				"id": "alice",
				"roles": ["auditor", "support"],
				"properties": {"region": "us"},
				"attributes": {"region": "eu"},
			},
		],
		"what the caller calls attributes is not looked at": [
			testing.registry,
			{"id": "bob", "attributes": {"region": "eu"}},
			{"id": "bob", "roles": [], "properties": {}, "attributes": {}},
		],
		"a role that both give": [
			testing.registry,
			{"id": "alice", "roles": ["support"]},
			{"id": "alice", "roles": ["support"], "properties": {}, "attributes": {"region": "eu"}},
		],
		"a suspended membership, where memberships are optional": [
			_acme_optional,
			{"id": "carol", "roles": ["auditor"]},
			{"id": "carol", "roles": ["auditor"], "properties": {}, "attributes": {}},
		],
	}
	subject := identity.subject with data.registry.base as compiled
		with input as testing.request_of_acme({"subject": sent})
	subject == seen
}

test_membership[name] if {
	some name, policies in {"alice": {"POL-SUPPORT"}, "bob": set(), "carol": set(), "dave": set()}
	membership := identity.membership with data.registry.base as _acme_optional
		with input as testing.request_of_acme({"subject": {"id": name}})
	{policy | some policy in membership.policies} == policies
}

test_optional_membership_denies_nobody[name] if {
	some name in ["alice", "bob", "carol", "dave", ""]
	denials := identity.denials with data.registry.base as _acme_optional
		with input as testing.request_of_acme({"subject": {"id": name}})
	denials == []
}

# What is not there cannot be trusted: no rows at all is an answer that nobody takes for an ALLOW.
test_no_rows_of_a_malformed_request[path] if {
	some path in [
		"/tenant",
		"/tenant/id",
		"/principal",
		"/principal/id",
		"/subject",
		"/subject/id",
		"/subject/roles",
		"/delegation",
		"/delegation/0/id",
		"/scopes",
		"/time",
		"/settings",
		"/settings/delegation",
		"/settings/delegation/max_depth",
	]
	asked := json.remove(testing.request_of_acme({"delegation": [{"id": "agent:report-bot"}]}), [path])
	not identity.denials with data.registry.base as testing.registry with input as asked
}

# Whatever is said of who may act, and is no list of agents with the principal among them, lets nobody act.
test_ill_typed_may_act_never_passes[name] if {
	some name, may_act in {
		"a text": "agent:order-bot",
		"an object": {"sub": "agent:order-bot"},
		"an object by agent": {"agent:order-bot": true},
		"a set": {"agent:order-bot"},
		"null": null,
		"false": false,
		"true": true,
		"a number": 0,
		"a list in a list": [["agent:order-bot"]],
		"a list of objects": [{"sub": "agent:order-bot"}],
	}
	every check in [{}, _current] {
		denials := identity.denials with data.registry.base as testing.registry
			with input as testing.request_of_acme(object.union(check, {"may_act": may_act}))
		[row.code | some row in denials] == ["DELEGATION_INVALID"]
	}
}

# Anything but `current` looks at the whole chain.
test_how_the_chain_is_checked[name] if {
	some name, asked in {
		"a misspelt setting": testing.request_with({"settings": {"delegation": {"check": "Current"}}}),
		"no setting": json.remove(testing.request, ["/settings/delegation/check"]),
	}
	denials := identity.denials with data.registry.base as testing.registry
		with input as object.union(asked, _by("a", ["x"], [_hop("b", [])]))
	[row.code | some row in denials] == ["DELEGATION_INVALID"]
}
