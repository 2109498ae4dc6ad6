# METADATA
# title: Batch
# description: The same question about many items that share the identity.
# schemas:
#   - input: schema.input
package tenantgate.batch

import data.tenantgate.decision as table

# METADATA
# description: The decision on each item, in the order of the items.
# entrypoint: true
decisions := [table.decide(item) | some item in input.items]
