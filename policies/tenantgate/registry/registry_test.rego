package tenantgate.registry_test

import data.tenantgate.registry
import data.tenantgate.testing

test_state[tenant] if {
	some tenant, bound in {"acme": {"max_staleness_seconds": 900}, "globex": {}, "nobody": {}}
	state := registry.state with data.registry.base as testing.registry
		with input as testing.request_with({"tenant": {"id": tenant}})
	state == object.union({"revision": "20260102T030405Z-0123456789ab", "as_of": 1767323045000000}, bound)
}

test_rules_that_concern[name] if {
	some name, tc in {
		"an exact id, and a glob that takes it in": ["TOOL", "agent:tool:order-lookup", ["rule-1", "any-order-tool"]],
		"a glob alone": ["TOOL", "agent:tool:order-cancel", ["any-order-tool"]],
		"a glob whose star takes in nothing": ["TOOL", "agent:tool:order-", ["any-order-tool"]],
		"an exact id alone": ["TOOL", "agent:tool:admin-refund", ["no-admin"]],
		"two stars": ["AGENT", "agent:a:b/c", ["all-of-agents"]],
		"a glob that begins with its stars": ["MEMORY", "memory:alice", ["everything"]],
		"such a glob takes in the empty id": ["MEMORY", "", ["everything"]],
		"a star stays in its segment": ["TOOL", "agent:tool:order-x:y", []],
		"text after a star": ["TOOL", "agent:tool:x:run", ["one-segment"]],
		"a longer id is another": ["TOOL", "agent:tool:admin-refund-all", []],
		"an id shorter than the glob's text": ["TOOL", "agent:tool:order", []],
		"another case": ["TOOL", "agent:tool:Order-lookup", []],
		"another case of the type": ["tool", "agent:tool:order-lookup", []],
		"an unknown type": ["MODEL", "agent:tool:order-lookup", []],
		"an empty type": ["", "agent:tool:order-lookup", []],
		"an empty id": ["TOOL", "", []],
		"a Cyrillic letter that looks alike": ["TOOL", "agent:tool:\u043erder-lookup", []],
		"a Cyrillic letter after the glob's text": ["TOOL", "agent:tool:order-lookup\u043e", ["any-order-tool"]],
		"a trailing space after an exact id": ["TOOL", "agent:tool:admin-refund ", []],
		"a star that is asked for is a character": ["TOOL", "agent:tool:*", []],
		"a star that is asked for, where a glob takes in any character": ["TOOL", "agent:tool:order-*", ["any-order-tool"]],
		"characters that are special in a regular expression": ["TOOL", "agent:tool:admin.refund", []],
		"a regular expression is an id": ["TOOL", ".*", []],
	}
	ids := [rule.id | some rule in registry.rules(tc[0], tc[1])] with data.registry.base as testing.registry
		with input as testing.request_of_acme({})
	ids == tc[2]
}

test_no_rules_of_another_tenant[tenant] if {
	some tenant in ["globex", "", "ACME", "acme ", "*", "acm\u0435", "nobody"]
	rules := registry.rules("TOOL", "agent:tool:order-lookup") with data.registry.base as testing.registry
		with input as testing.request_with({"tenant": {"id": tenant}})
	rules == []
}

test_plain_id_with_braces if {
	compiled := testing.registry_with("globex", {
		"rules": [testing.rule("r", "ALLOW", {})],
		"exact": {"ROUTE": {"/todos/{todoId}": [0]}},
	})
	ids := {id |
		some id in ["/todos/{todoId}", "/todos/1", "/todos/"]
		count(registry.rules("ROUTE", id)) == 1 with data.registry.base as compiled with input as testing.request
	}
	ids == {"/todos/{todoId}"}
}

test_rules_come_in_order_each_once if {
	compiled := testing.registry_with("globex", {
		"rules": [testing.rule(id, "ALLOW", {}) | some id in ["a", "b", "c"]],
		"exact": {"TOOL": {"t:x": [1, 2]}},
		"terms": {"lengths": {"TOOL": [1, 2]}},
		"globs": {"TOOL": {"t": [{"rule": 2}], "t:": [{"rule": 0}]}},
	})
	ids := [rule.id | some rule in registry.rules("TOOL", "t:x")] with data.registry.base as compiled
		with input as testing.request
	ids == ["a", "b", "c"]
}

# The tenant's own entry replaces the shared one as a whole.
test_resource[name] if {
	own := testing.registry_with("globex", {"resources": {"TOOL": {"agent:tool:order-cancel": {"access": "READ"}}}})
	bare := testing.registry_with("globex", {"resources": {"TOOL": {"agent:tool:order-lookup": {}}}})
	some name, tc in {
		"the shared entry": [testing.registry, "agent:tool:order-cancel", {"access": "WRITE"}],
		"the tenant's own over the shared one": [own, "agent:tool:order-cancel", {"access": "READ"}],
		"an own entry that declares nothing": [bare, "agent:tool:order-lookup", {}],
		"the shared one where the own is of another id": [own, "agent:tool:order-lookup", {
			"access": "READ",
			"attributes": {"owner": "orders"},
		}],
	}
	entry := registry.resource("TOOL", tc[1]) with data.registry.base as tc[0] with input as testing.request
	entry == tc[2]
}

# One word against the resource is enough, whichever entry says it.
test_resource_suspended[name] if {
	off := {"resources": {"TOOL": {"t:x": {"status": "SUSPENDED"}}}}
	on := {"resources": {"TOOL": {"t:x": {"access": "READ"}}}}
	some name, tc in {
		"by the tenant": [testing.registry_with("globex", off), true],
		"for all": [object.union(testing.registry, {"shared": off}), true],
		"for all, not by the tenant": [object.union(testing.registry_with("globex", on), {"shared": off}), true],
		"by another tenant": [testing.registry_with("acme", off), false],
		"by nobody": [testing.registry_with("globex", on), false],
	}
	suspended := [true | registry.resource_suspended("TOOL", "t:x")] with data.registry.base as tc[0]
		with input as testing.request
	suspended == [true | tc[1]]
}

test_no_resource[name] if {
	some name, tc in {
		"another tenant's": ["TOOL", "agent:tool:order-export"],
		"another type": ["MEMORY", "agent:tool:order-lookup"],
		"another case": ["TOOL", "agent:tool:Order-Lookup"],
	}
	not registry.resource(tc[0], tc[1]) with data.registry.base as testing.registry with input as testing.request
}
