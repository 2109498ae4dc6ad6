package tenantgate.authorize_test

import data.tenantgate.authorize
import data.tenantgate.testing

test_decision if {
	decision := authorize.decision with data.registry.base as testing.registry with input as testing.request_of_acme({})
	decision == {
		"effect": "ALLOW",
		"code": "ALLOWED",
		"reason": `allowed by rule "rule-1" of policy "POL-A"`,
		"policy_id": "POL-A",
		"rule_id": "rule-1",
		"obligations": [],
		"revision": "20260102T030405Z-0123456789ab",
		"as_of": 1767323045000000,
		"max_staleness_seconds": 900,
		"depends_on": set(),
	}
}

# The data of one tenant never decides about another, also where the same ids are known to both.
test_tenants_are_kept_apart[name] if {
	some name, [tenant, code] in {
		"the tenant whose rule it is": ["acme", "ALLOWED"],
		"another tenant": ["globex", "NO_MATCHING_RULE"],
		"a suspended tenant": ["initech", "TENANT_SUSPENDED"],
		"no tenant": ["", "TENANT_UNKNOWN"],
		"the tenant in another case": ["Acme", "TENANT_UNKNOWN"],
		"the tenant with a trailing space": ["acme ", "TENANT_UNKNOWN"],
	}
	testing.decide_under(testing.registry, testing.request_with({"tenant": {"id": tenant}})).code == code
}

test_no_decision_without[name] if {
	some name, [compiled, asked] in {
		"a registry": [{}, testing.request],
		"a list of extensions": [json.remove(testing.registry, ["/meta/extensions"]), testing.request],
		"a revision": [json.remove(testing.registry, ["/meta/revision"]), testing.request],
		"a request": [testing.registry, {}],
	}
	not testing.decide_under(compiled, asked)
}
