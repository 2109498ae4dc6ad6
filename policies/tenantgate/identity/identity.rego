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
	"attributes": object.get(_membership, "attributes", {}),
}

# METADATA
# description: The roles of the membership together with those that the caller was verified to have.
roles := {role | some role in input.subject.roles} | {role | some role in _membership.roles}

# METADATA
# description: The ids of the policies that are assigned to the subject by its membership.
assigned_policies := {policy | some policy in _membership.policies}

# A suspended membership counts as none.
default _membership := {}

_membership := registry.membership if registry.membership.status == "ACTIVE"

# METADATA
# description: |
#   What the principal may do at the most: the scopes it was delegated, cut by what the tenant lets the principal and, where the
#   whole chain is checked, every earlier actor hold.
effective_scopes := _requested_scopes if not registry.keeps_agents

effective_scopes := _requested_scopes & intersection({_scopes_of(actor.id) | some actor in _checked_actors}) if {
	registry.keeps_agents
}

_requested_scopes := {scope | some scope in input.scopes}

_scopes_of(id) := {scope | some scope in registry.agent(id).scopes}

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
	not registry.tenant_status
	reason := sprintf("the registry has no tenant %q", [input.tenant.id])
} else := {"code": "TENANT_SUSPENDED", "reason": reason} if {
	registry.tenant_status != "ACTIVE"
	reason := sprintf("tenant %q is suspended", [input.tenant.id])
}

# IMPERSONATION, unless an agent acts and says who it is.
_impersonation := {"code": "IMPERSONATION", "reason": "no principal: an agent must act as itself, for the subject"} if {
	input.principal.id == ""
} else := {"code": "IMPERSONATION", "reason": reason} if {
	input.principal.id == input.subject.id
	reason := sprintf("principal %q is the subject itself: an agent must act for the subject, not as it", [input.subject.id])
}

# DELEGATION_INVALID, unless each actor is one that the tenant lists and none has more scopes than the one before.
_delegation_invalid := {"code": "DELEGATION_INVALID", "reason": _delegation_faults[0]} if count(_delegation_faults) > 0

_delegation_faults := array.concat(
	[sprintf("the delegation chain has %d actors, the limit is %d", [depth, limit]) |
		depth := count(input.delegation)
		limit := input.settings.delegation.max_depth
		depth > limit
	],
	[fault | some i, actor in _checked_actors; some fault in [_actor_fault(i, actor)]],
)

_actor_fault(i, actor) := sprintf("%s is not an agent of the tenant", [_actor_name(i, actor)]) if {
	registry.keeps_agents
	not registry.agent(actor.id)
} else := sprintf("%s is suspended", [_actor_name(i, actor)]) if {
	registry.agent(actor.id).status != "ACTIVE"
} else := sprintf("%s holds scopes that %q before it does not: %s", [_actor_name(i, actor), before.id, concat(", ", wider)]) if {
	input.settings.delegation.check == "chain"

	# an actor that does not declare its scopes hands on those of the actor before it
	before := [a | some j, a in _chain; j > i; a.scopes][0]
	wider := {s | some s in actor.scopes} - {s | some s in before.scopes}
	count(wider) > 0
}

_actor_name(0, actor) := sprintf("principal %q", [actor.id])

_actor_name(i, actor) := sprintf("actor %q (hop %d)", [actor.id, i]) if i > 0

# SUBJECT_NOT_MEMBER, unless the tenant keeps no memberships or the subject has an active one.
_subject_not_member := {"code": "SUBJECT_NOT_MEMBER", "reason": reason} if {
	registry.keeps_memberships
	not registry.membership
	reason := sprintf("subject %q is not a member of tenant %q", [input.subject.id, input.tenant.id])
} else := {"code": "SUBJECT_NOT_MEMBER", "reason": reason} if {
	registry.keeps_memberships
	registry.membership.status != "ACTIVE"
	reason := sprintf("the membership of subject %q in tenant %q is suspended", [input.subject.id, input.tenant.id])
}

# METADATA
# description: Every row that denies whatever is asked for, in the order of the decision table. Empty when none does.
denials := array.flatten([
	[row | row := _tenant_mismatch],
	[row | row := _tenant_inactive],
	[row | row := _impersonation],
	[row | row := _delegation_invalid],
	[row | row := _subject_not_member],
])
