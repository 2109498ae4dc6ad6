# METADATA
# title: Search
# description: |
#   For which subjects, resources or actions the decision is an ALLOW. The candidates are what the registry names; each is decided
#   like any request about it. They are looked at in the order of their ids, so many at a time, from behind one on.
# schemas:
#   - input: schema.input
package tenantgate.search

import data.tenantgate.decision as table
import data.tenantgate.registry

# METADATA
# description: The members of the tenant, and the users whom rules about the resource name, that may do it.
# entrypoint: true
subjects := _answer(later, effects) if {
	later := _later(registry.users(input.resource.type, input.resource.id))
	effects := [[id, _effect_for(id)] | some id in array.slice(later, 0, input.search.most)]
}

# METADATA
# description: The resources of a type that the catalogues hold or rules name by their ids, to which it may be done.
# entrypoint: true
resources := _answer(later, effects) if {
	later := _later(registry.resource_ids(input.resource.type))
	effects := [[id, decision.effect] |
		some id in array.slice(later, 0, input.search.most)
		decision := table.decide(object.union(_item, {"resource": {"id": id}}))
	]
}

# METADATA
# description: The actions that rules about the resource name, that may be done to it.
# entrypoint: true
actions := _answer(later, effects) if {
	later := _later(registry.action_names(input.resource.type, input.resource.id))
	effects := [[name, decision.effect] |
		some name in array.slice(later, 0, input.search.most)
		decision := table.decide(object.union(_item, {"action": {"name": name}}))
	]
}

# One that is malformed has no effect, and then there is no answer.
_answer(later, effects) := object.union(registry.state, {
	"found": [id | some [id, effect] in effects; effect == "ALLOW"],
	"next": _next(later),
}) if {
	count(effects) == min([count(later), input.search.most])
}

_later(candidates) := sort([id | some id in candidates; id > input.search.after; startswith(id, input.search.prefix)])

_next(later) := later[input.search.most - 1] if {
	count(later) > input.search.most
} else := ""

_item := object.filter(input, ["resource", "action", "context", "arguments"])

# What the token says of its subject does not hold for others.
_effect_for(id) := table.decide(_item).effect if {
	id == input.subject.id
} else := decision.effect if {
	another := {"id": id, "roles": [], "properties": input.search.properties}
	decision := table.decide(_item) with input as object.union(_of_nobody, {"subject": another})
}

_of_nobody := object.remove(input, ["subject", "may_act"])
