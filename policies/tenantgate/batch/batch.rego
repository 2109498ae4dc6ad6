# METADATA
# title: Batch
# description: The same question about many items that share the identity.
# schemas:
#   - input: schema.input
package tenantgate.batch

import data.tenantgate.decision as table

# METADATA
# description: The decision on each item, in the order of the items; undefined where one of them is malformed.
# entrypoint: true
decisions := answers if {
	answers := [table.decide(item) | some item in input.items]
	count(answers) == count(input.items)
}
