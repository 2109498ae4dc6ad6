# METADATA
# title: Identity
# description: |
#   Who is asking: the rows of the decision table that depend on the tenant, the principal, the subject and the chain between
#   them alone. They are rules on `input`, so that a batch pays for them once.
# schemas:
#   - input: schema.input
package tenantgate.identity

import data.tenantgate.registry

# METADATA
# description: The subject as conditions see it, with what the registry knows next to what the caller sent.
subject := {
	"id": input.subject.id,
	"roles": [role | some role in roles],
	"properties": object.get(input.subject, "properties", {}),
	"attributes": object.get(membership, "attributes", {}),
}

# METADATA
# description: The roles of the membership together with those that the caller was verified to have.
roles := {role | some role in input.subject.roles} | {role | some role in registry.membership.roles}

# METADATA
# description: What the tenant knows of the subject; empty unless there is a membership and it is active.
default membership := {}

membership := registry.membership

# METADATA
# description: |
#   What the principal may do at the most: the scopes it was delegated, cut by what the tenant lets the principal and, where the
#   whole chain is checked, every earlier actor hold.
effective_scopes := {scope | some scope in input.scopes; scope in held} if {
	held := direct_scopes
} else := {scope | some scope in input.scopes; scope in registry.principal.scopes} if {
	input.delegation == []
	registry.principal
} else := {scope | some scope in input.scopes} if {
	not registry.terms.agents
} else := {scope |
	some scope in input.scopes
	every actor in _checked_actors {
		scope in registry.agent(actor.id).scopes
	}
}

# METADATA
# description: |
#   The actor that holds the fewest of the scopes that were delegated, with those that it lacks: the first of such actors in the
#   order of the chain, where the principal is hop 0. Undefined when nobody lacks any.
weakest_hop := [hop | some hop in _lacking; count(hop.lacks) == most][0] if {
	most := max([count(hop.lacks) | some hop in _lacking])
}

_lacking := [{"id": actor.id, "hop": i, "lacks": [scope | some scope in lacks]} |
	some i, actor in _checked_actors
	lacks := {scope | some scope in input.scopes; not _holds(actor, scope)}
	count(lacks) > 0
]

# An actor holds what the tenant lets it hold, where the tenant keeps agents, and of that what it declares, where it declares any.
_holds(actor, scope) if {
	scope in object.get(actor, "scopes", [scope])
	_may_hold(actor, scope)
}

_may_hold(actor, scope) if scope in registry.agent(actor.id).scopes

_may_hold(_, _) if not registry.terms.agents

# The principal first, then its earlier actors, outermost first.
_chain := array.concat([{"id": input.principal.id, "scopes": input.scopes}], input.delegation)

_checked_actors := array.slice(_chain, 0, 1) if input.settings.delegation.check == "current"

else := _chain

# TENANT_MISMATCH, unless every tenant that the request names is the tenant of the verified identity.
_tenant_mismatch := {"code": "TENANT_MISMATCH", "reason": reason} if {
	other := [named | some named in input.tenant.named; named != input.tenant.id][0]
	reason := sprintf("the request names tenant %q, the caller belongs to tenant %q", [other, input.tenant.id])
}

# TENANT_UNKNOWN or TENANT_SUSPENDED, unless the tenant is there and active.
_tenant_inactive := {"code": "TENANT_UNKNOWN", "reason": reason} if {
	not registry.terms.status
	reason := sprintf("the registry has no tenant %q", [input.tenant.id])
} else := {"code": "TENANT_SUSPENDED", "reason": reason} if {
	registry.terms.status != "ACTIVE"
	reason := sprintf("tenant %q is suspended", [input.tenant.id])
}

# IMPERSONATION, unless an agent acts and says who it is, and nobody along the chain posed as the subject.
_impersonation := {"code": "IMPERSONATION", "reason": "no principal: an agent must act as itself, for the subject"} if {
	input.principal.id == ""
} else := {"code": "IMPERSONATION", "reason": reason} if {
	reason := sprintf("%s is the subject itself: an agent must act for the subject, not as it", [_posing[0]])
}

_posing := [_actor_name(i, actor) | some i, actor in _checked_actors; actor.id == input.subject.id]

# DELEGATION_INVALID, unless the subject lets the principal act, each actor is one that the tenant lists, and none has more scopes
# than the one before.
_delegation_invalid := {"code": "DELEGATION_INVALID", "reason": _delegation_faults[0]} if count(_delegation_faults) > 0

_delegation_faults := array.flatten([
	[sprintf("the delegation chain has %d actors, the limit is %d", [depth, limit]) |
		depth := count(input.delegation)
		limit := input.settings.delegation.max_depth
		depth > limit
	],
	[sprintf("the subject lets %s act for it, not principal %q", [_those_who_may_act, input.principal.id]) |
		not _principal_may_act
	],
	[fault | some i, actor in _checked_actors; some fault in [_actor_fault(i, actor)]],
])

# Nothing says who may act for the subject, or the principal is among them. Whatever is said that is no list lets nobody act.
_principal_may_act if not _may_act_is_said

else if {
	is_array(input.may_act)
	input.principal.id in input.may_act
}

_may_act_is_said if type_name(input.may_act)

_those_who_may_act := concat(", ", names) if {
	names := [sprintf("%q", [id]) | some id in input.may_act]
	names != []
} else := "nobody"

_actor_fault(i, actor) := sprintf("%s is not an agent of the tenant", [_actor_name(i, actor)]) if {
	registry.terms.agents
	not registry.agent(actor.id)
} else := sprintf("%s is suspended", [_actor_name(i, actor)]) if {
	registry.agent(actor.id).status != "ACTIVE"
} else := sprintf("%s holds scopes that %s before it does not: %s", [_actor_name(i, actor), _actor_name(j, before), wider]) if {
	not input.settings.delegation.check == "current"

	# an actor that does not declare its scopes hands on those of the actor before it
	[j, before] := [[j, a] | some j, a in _chain; j > i; a.scopes][0]
	more := {s | some s in actor.scopes} - {s | some s in before.scopes}
	count(more) > 0
	wider := concat(", ", more)
}

_actor_name(0, actor) := sprintf("principal %q", [actor.id])

_actor_name(i, actor) := sprintf("actor %q (hop %d)", [actor.id, i]) if i > 0

# SUBJECT_NOT_MEMBER, unless the tenant keeps no memberships or the subject has an active one.
_subject_not_member := {"code": "SUBJECT_NOT_MEMBER", "reason": reason} if {
	registry.terms.membership == "REQUIRED"
	not registry.membership
	not registry.membership_suspended
	reason := sprintf("subject %q is not a member of tenant %q", [input.subject.id, input.tenant.id])
} else := {"code": "SUBJECT_NOT_MEMBER", "reason": reason} if {
	registry.terms.membership == "REQUIRED"
	registry.membership_suspended
	reason := sprintf("the membership of subject %q in tenant %q is suspended", [input.subject.id, input.tenant.id])
}

# METADATA
# description: |
#   What is asked most: an agent that the tenant lists acts for an active member, directly, and the request says nothing beside that.
#   No row denies it, which is seen here at a glance. Gives the scopes that the agent may hold.
direct_scopes := held if {
	input.delegation == []
	input.scopes
	input.subject.roles
	input.time
	input.principal.id != input.subject.id
	[true | _ := input.may_act] == []
	[named | some named in input.tenant.named; named != input.tenant.id] == []
	tenant := registry.tenant
	tenant.terms.status == "ACTIVE"
	tenant.members[input.subject.id]
	held := json.unmarshal(tenant.agents[input.principal.id])
}

# METADATA
# description: |
#   Every row that denies whatever is asked for, in the order of the decision table. Empty when none does; undefined for a request
#   that lacks what the rows look at, so that there is no decision on it.
denials := [] if {
	direct_scopes
} else := [] if {
	input.scopes
	input.subject.roles
	input.time
	registry.terms.status == "ACTIVE"
	input.principal.id != ""
	input.principal.id != input.subject.id
	_principal_may_act
	{named | some named in input.tenant.named; named != input.tenant.id} == set()
	_chain_is_valid
	_subject_is_admitted
} else := rows if {
	rows := array.flatten([
		[row | row := _tenant_mismatch],
		[row | row := _tenant_inactive],
		[row | row := _impersonation],
		[row | row := _delegation_invalid],
		[row | row := _subject_not_member],
	])
	rows != []
}

# METADATA
# description: The item is looked at, as nobody is refused already, or the caller wants all that applies.
looks_at_item if denials == []

else if input.explain

# A principal that acts for the subject directly, which is the usual case, has no chain to walk along.
_chain_is_valid if {
	input.delegation == []
	registry.principal.status == "ACTIVE"
} else if {
	input.delegation == []
	not registry.terms.agents
} else if {
	count(input.delegation) <= input.settings.delegation.max_depth
	every actor in input.delegation {
		actor.id
	}
	_posing == []
	_delegation_faults == []
}

_subject_is_admitted if registry.membership

else if registry.terms.membership == "OPTIONAL"
