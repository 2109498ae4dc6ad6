# METADATA
# title: Coalesced
# description: |
#   Many questions in one query, which have nothing in common but that they came at the same time: each is a whole input of the
#   entrypoint `authorize`, and is decided as it would be there.
package tenantgate.coalesced

import data.tenantgate.authorize

# METADATA
# description: The decision on each question, in the order of the questions; null for those on which there is none.
# entrypoint: true
decisions := [_decision(question) | some question in input.questions]

_decision(question) := decision if {
	decision := authorize.decision with input as question
} else := null
