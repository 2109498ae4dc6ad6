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
	ids := [id | some [_, _, id, _] in registry.rules(tc[0], tc[1])] with data.registry.base as testing.registry
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

# Globs are looked up by lines cut from the key; a line of the id is not where the key begins.
test_no_rules_of_a_glob_that_a_later_line_begins_with if {
	compiled := testing.registry_with("globex", {
		"rules": [testing.rule("r", "ALLOW", {}), testing.rule("longer", "ALLOW", {})],
		"globs": {"TOOL": {"t:": [{"rule": 0}], "t:longer-text": [{"rule": 1}]}},
	})
	ids := {id |
		some id in ["t:x", "t:x\nTOOL\tt:", "\nTOOL\tt:", "\nTOOL\tt:longer-text"]
		registry.rules("TOOL", id) != [] with data.registry.base as compiled with input as testing.request
	}
	ids == {"t:x", "t:x\nTOOL\tt:"}
}

test_rules_come_in_order_each_once if {
	compiled := testing.registry_with("globex", {
		"rules": [testing.rule(id, "ALLOW", {}) | some id in ["a", "b", "c"]],
		"exact": {"TOOL": {"t:x": [1, 2]}},
		"globs": {"TOOL": {"t": [{"rule": 2}], "t:": [{"rule": 0}]}},
	})
	ids := [id | some [_, _, id, _] in registry.rules("TOOL", "t:x")] with data.registry.base as compiled
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
	off_for_all := {"shared": {"resources": testing.catalogue(off.resources)}}
	on := {"resources": {"TOOL": {"t:x": {"access": "READ"}}}}
	some name, tc in {
		"by the tenant": [testing.registry_with("globex", off), true],
		"for all": [object.union(testing.registry, off_for_all), true],
		"for all, not by the tenant": [object.union(testing.registry_with("globex", on), off_for_all), true],
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

_as_of := testing.registry.meta.as_of

_base_revision := testing.registry.meta.revision

_overlay_revision := testing.overlay_of({}).meta.revision

_open := testing.registry_of([testing.rule("r", "ALLOW", {})])

# What an overlay says of globex: nothing of it is as in the base.
_closed(version) := object.union(
	testing.registry_of([testing.rule("r", "DENY", {})]).tenants.globex,
	{"terms": {"version": version}},
)

_tombstone(version) := {"terms": {"version": version, "removed": true}}

test_the_newer_of_two_layers[name] if {
	without := json.remove(_open, ["/tenants/globex"])
	some name, [base, tenants, code] in {
		"none in the overlay": [_open, {}, "ALLOWED"],
		"another in the overlay": [_open, {"acme": _closed(_as_of + 1)}, "ALLOWED"],
		"an older one in the overlay": [_open, {"globex": _closed(_as_of - 1)}, "ALLOWED"],
		"one of the same moment in the overlay": [_open, {"globex": _closed(_as_of)}, "DENIED_BY_RULE"],
		"a newer one in the overlay": [_open, {"globex": _closed(_as_of + 1)}, "DENIED_BY_RULE"],
		"an older tombstone": [_open, {"globex": _tombstone(_as_of - 1)}, "ALLOWED"],
		"a tombstone of the same moment": [_open, {"globex": _tombstone(_as_of)}, "TENANT_UNKNOWN"],
		"a newer tombstone": [_open, {"globex": _tombstone(_as_of + 1)}, "TENANT_UNKNOWN"],
		"another's tombstone": [_open, {"acme": _tombstone(_as_of + 1)}, "ALLOWED"],
		"one in the overlay alone": [without, {"globex": _closed(_as_of + 1)}, "DENIED_BY_RULE"],
		"one in the overlay alone, gone since": [without, {"globex": _closed(_as_of - 1)}, "TENANT_UNKNOWN"],
		"a tombstone of one that is gone": [without, {"globex": _tombstone(_as_of + 1)}, "TENANT_UNKNOWN"],
		"none in either": [without, {}, "TENANT_UNKNOWN"],
	}
	testing.decide_under_both(base, testing.overlay_of(tenants), testing.request).code == code
}

test_terms_of_the_overlay[name] if {
	some name, [terms, wanted] in {
		"suspended": [{"status": "SUSPENDED"}, {"code": "TENANT_SUSPENDED"}],
		"with memberships": [{"membership": "REQUIRED"}, {"code": "SUBJECT_NOT_MEMBER"}],
		"with agents": [{"agents": true}, {"code": "DELEGATION_INVALID"}],
		"with a bound": [{"max_staleness_seconds": 7}, {"code": "DENIED_BY_RULE", "max_staleness_seconds": 7}],
	}
	document := object.union(_closed(_as_of), {"terms": terms})
	testing.has(testing.decide_under_both(_open, testing.overlay_of({"globex": document}), testing.request), wanted)
}

_says contains "agents" if registry.terms.agents

_says contains "an agent" if registry.agent("agent:report-bot")

_says contains "the principal" if registry.principal

_says contains "a membership" if registry.membership

_says contains "a resource" if registry.resource("TOOL", "agent:tool:order-export")

_says contains "a suspended resource" if registry.resource_suspended("TOOL", "t:x")

_says contains "a rule by its id" if count(registry.rules("TOOL", "agent:tool:admin-refund")) > 0

_says contains "a rule by a glob" if count(registry.rules("MEMORY", "memory:alice")) > 0

# Where the layer in force is silent, the other does not speak for it.
test_a_tenant_is_of_one_layer[name] if {
	full := testing.registry_with("acme", {"resources": {"TOOL": {"t:x": {"status": "SUSPENDED"}}}}).tenants.acme
	bare := {"terms": {"status": "ACTIVE", "membership": "REQUIRED"}}
	some name, [below, above, version, said] in {
		"a full one in the base": [full, bare, _as_of - 1, 8],
		"a bare one over a full one": [full, bare, _as_of, 0],
		"a tombstone over a full one": [full, {"terms": {"removed": true}}, _as_of, 0],
		"a full one in the overlay": [bare, full, _as_of, 8],
		"a bare one that is newer than a full one in the overlay": [bare, full, _as_of - 1, 0],
	}
	overlay := testing.overlay_of({"acme": object.union(above, {"terms": {"version": version}})})
	says := _says with data.registry as {"base": {"meta": testing.registry.meta, "tenants": {"acme": below}}, "overlay": overlay}
		with input as testing.request_of_acme({})
	count(says) == said
}

_catalogue(version) := {"shared": {
	"version": version,
	"resources": testing.catalogue({"TOOL": {"t:new": {"access": "READ"}, "t:x": {"status": "SUSPENDED"}}}),
}}

# The shared catalogue has a version of its own, whatever layer the tenant is taken from.
test_the_newer_of_two_shared_catalogues[name] if {
	some tenants in [{}, {"globex": _closed(_as_of)}, {"globex": _closed(_as_of - 1)}]
	some name, [above, access, suspended] in {
		"none in the overlay": [{}, ["WRITE"], []],
		"an older one in the overlay": [_catalogue(_as_of - 1), ["WRITE"], []],
		"one of the same moment in the overlay": [_catalogue(_as_of), ["READ"], [true]],
		"a newer one in the overlay": [_catalogue(_as_of + 1), ["READ"], [true]],
		"an empty one in the overlay": [{"shared": {"version": _as_of, "resources": {}}}, [], []],
	}
	both := {"base": testing.registry, "overlay": object.union(testing.overlay_of(tenants), above)}
	found := [entry.access |
		some id in ["agent:tool:order-cancel", "t:new"]
		entry := registry.resource("TOOL", id)
	] with data.registry as both with input as testing.request
	shut_off := [true | registry.resource_suspended("TOOL", "t:x")] with data.registry as both with input as testing.request
	[found, shut_off] == [access, suspended]
}

test_own_entry_before_a_shared_one_of_the_other_layer[name] if {
	own := testing.registry_with("globex", {"resources": {"TOOL": {"t:new": {"access": "WRITE"}}}})
	shared := {"shared": {"resources": testing.catalogue({"TOOL": {"t:new": {"access": "READ"}}})}}
	some name, [base, overlay] in {
		"own in the base": [
			own,
			object.union(testing.overlay_of({}), _catalogue(_as_of)),
		],
		"own in the overlay": [
			object.union(testing.registry, shared),
			testing.overlay_of({"globex": object.union(own.tenants.globex, {"terms": {"version": _as_of}})}),
		],
	}
	entry := registry.resource("TOOL", "t:new") with data.registry as {"base": base, "overlay": overlay}
		with input as testing.request
	entry.access == "WRITE"
}

test_state_of_two_layers[name] if {
	later := _as_of + 1000000
	overlay_on_base := sprintf("%s+%s", [_overlay_revision, _base_revision])
	base_with_overlay := sprintf("%s+%s", [_base_revision, _overlay_revision])
	some name, [changes, revision, as_of] in {
		"an overlay that goes on from the base": [{}, _overlay_revision, later],
		"one that goes back further": [{"since": 5}, _overlay_revision, later],
		"one of the base's moment": [{"as_of": _as_of}, _overlay_revision, _as_of],
		"one made beside another base": [{"base": "other"}, overlay_on_base, later],
		"one that does not say beside which": [{"base": null}, overlay_on_base, later],
		"one made beside another base, of the base's moment": [
			{"base": "other", "as_of": _as_of},
			overlay_on_base,
			_as_of,
		],
		"one that is older": [{"since": 5, "as_of": _as_of - 1}, base_with_overlay, _as_of],
		"one that is older, made beside another base": [
			{"since": 5, "as_of": _as_of - 1, "base": "other"},
			base_with_overlay,
			_as_of,
		],
		"one that leaves a gap": [{"since": _as_of + 1}, base_with_overlay, _as_of],
		"one that leaves a gap, made beside another base": [
			{"since": _as_of + 1, "base": "other"},
			base_with_overlay,
			_as_of,
		],
	}
	overlay := object.union(testing.overlay_of({}), {"meta": changes})
	state := registry.state with data.registry as {"base": testing.registry, "overlay": overlay}
		with input as testing.request
	state == {"revision": revision, "as_of": as_of}
}

test_no_decision_with_a_malformed_overlay[name] if {
	overlay := testing.overlay_of({})
	some name, malformed in {
		"an empty one": {},
		"false": false,
		"null": null,
		"a text": "overlay",
		"tenants alone": {"tenants": {"globex": _closed(_as_of)}},
		"tenants alone, others": {"tenants": {"acme": _closed(_as_of)}},
		"empty meta": {"meta": {}, "tenants": {}},
		"meta that is false": {"meta": false, "tenants": {}},
		"meta that is null": {"meta": null, "tenants": {}},
		"no moment": json.remove(overlay, ["/meta/as_of"]),
		"no moment, after a gap": json.remove(object.union(overlay, {"meta": {"since": _as_of + 1}}), ["/meta/as_of"]),
		"no beginning": json.remove(overlay, ["/meta/since"]),
		"no beginning of an older one": json.remove(object.union(overlay, {"meta": {"as_of": 5}}), ["/meta/since"]),
		"no revision": json.remove(overlay, ["/meta/revision"]),
	}
	not testing.decide_under_both(_open, malformed, testing.request)
}

test_no_decision_without_a_base_below_the_overlay[name] if {
	some name, base in {
		"empty": {},
		"no moment": json.remove(_open, ["/meta/as_of"]),
		"no extensions": json.remove(_open, ["/meta/extensions"]),
		"extensions that are false": object.union(_open, {"meta": {"extensions": false}}),
	}
	not testing.decide_under_both(base, testing.overlay_of({"globex": _closed(_as_of)}), testing.request)
}

test_extensions_are_those_of_the_base if {
	overlay := object.union(testing.overlay_of({}), {"meta": {"extensions": ["change_freeze"]}})
	names := registry.meta.extensions with data.registry as {"base": testing.registry, "overlay": overlay}
	names == []
}

# A change comes in a newer base and in a newer overlay. Whichever is there first, the change is there from then on.
test_either_order[name] if {
	newer_base := object.union(testing.registry_of([testing.rule("r", "DENY", {})]), {"meta": {
		"revision": "newer base",
		"as_of": _as_of + 500000,
	}})
	newer_overlay := testing.overlay_of({"globex": _closed(_as_of + 300000)})
	older_overlay := object.union(
		testing.overlay_of({"globex": object.union(_open.tenants.globex, {"terms": {"version": _as_of + 1}})}),
		{"meta": {"revision": "older overlay", "as_of": _as_of + 2}},
	)
	some name, [base, overlay, code, revision] in {
		"neither yet": [_open, older_overlay, "ALLOWED", "older overlay"],
		"the base first": [newer_base, older_overlay, "DENIED_BY_RULE", "newer base+older overlay"],
		"the overlay first": [_open, newer_overlay, "DENIED_BY_RULE", _overlay_revision],
		"both": [newer_base, newer_overlay, "DENIED_BY_RULE", sprintf("%s+newer base", [_overlay_revision])],
	}
	testing.has(testing.decide_under_both(base, overlay, testing.request), {"code": code, "revision": revision})
}
