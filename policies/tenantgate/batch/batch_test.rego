package tenantgate.batch_test

import data.tenantgate.batch
import data.tenantgate.testing

_items := [object.union(testing.item_with({"arguments": {}}), {"resource": {"id": id}}) |
	some id in ["agent:tool:order-lookup", "agent:tool:admin-refund", "agent:tool:none", "", "agent:tool:order-lookup"]
]

_decisions(asked) := decisions if {
	decisions := batch.decisions with data.registry.base as testing.registry with input as asked
}

test_order_of_the_items if {
	decisions := _decisions(testing.request_about(_items, {"tenant": {"id": "acme"}}))
	[d.code | some d in decisions] == ["ALLOWED", "DENIED_BY_RULE", "NO_MATCHING_RULE", "NO_MATCHING_RULE", "ALLOWED"]
}

test_as_if_asked_one_by_one[name] if {
	some name, changes in {
		"a member": {"tenant": {"id": "acme"}},
		"a member who wants it explained": {"tenant": {"id": "acme"}, "explain": true},
		"nobody": {"tenant": {"id": "acme"}, "subject": {"id": "dave"}},
		"a tenant without rules": {},
	}
	singles := [testing.decide_under(testing.registry, object.union(asked, item)) |
		some item in _items
		asked := json.remove(testing.request_about([], changes), ["/items"])
	]
	_decisions(testing.request_about(_items, changes)) == singles
}

test_no_items if {
	_decisions(testing.request_about([], {})) == []
}

# An answer less would move those behind it to the wrong items.
test_no_decisions_with_a_malformed_item[path] if {
	some path in ["/resource", "/resource/id", "/action/name", "/arguments"]
	items := array.concat([json.remove(_items[0], [path])], _items)
	not _decisions(testing.request_about(items, {}))
}
