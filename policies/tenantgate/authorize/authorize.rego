# METADATA
# title: Authorize
# description: May this agent, acting for this user of this tenant, do this, with these arguments, now?
# schemas:
#   - input: schema.input
package tenantgate.authorize

import data.tenantgate.decision as table

# METADATA
# description: The decision on the request.
# entrypoint: true
decision := table.decide(input)
