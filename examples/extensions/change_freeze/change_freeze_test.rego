package custom.change_freeze_test

import data.custom.change_freeze
import data.tenantgate.testing

_reasons(context, id) := reasons if {
	reasons := change_freeze.deny with data.registry.base as testing.registry
		with input as testing.request_with({"context": context, "resource": {"id": id}})
}

test_lets_go_on[name] if {
	some name, [context, id] in {
		"writing, where nobody speaks of a freeze": [{}, "agent:tool:order-cancel"],
		"writing, where there is none": [{"change_freeze": false}, "agent:tool:order-cancel"],
		"reading during a freeze": [{"change_freeze": true}, "agent:tool:order-lookup"],
	}
	count(_reasons(context, id)) == 0
}

test_denies[name] if {
	some name, [freeze, id] in {
		"writing": [true, "agent:tool:order-cancel"],
		"a tool that declares no access": [true, "agent:tool:unheard-of"],
		"a freeze that is a text": ["true", "agent:tool:order-cancel"],
		"a freeze that is null": [null, "agent:tool:order-cancel"],
		"a freeze that is misspelt": ["flase", "agent:tool:order-cancel"],
	}
	_reasons({"change_freeze": freeze}, id) == {"a change freeze is on: only what reads may go on"}
}

test_declares_what_it_reads if {
	change_freeze.depends_on == ["context"]
}
