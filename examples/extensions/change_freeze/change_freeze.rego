# METADATA
# title: Change freeze
# description: |
#   An example of an extension: while the caller says that a change freeze is on, only what the registry declares as reading
#   goes on. A request whose context does not speak of a freeze is left alone.
package custom.change_freeze

import data.tenantgate.registry

# METADATA
# description: The parts of the request that `deny` reads, besides identity, resource and action name.
depends_on := ["context"]

# METADATA
# description: Why the action must wait.
deny contains "a change freeze is on: only what reads may go on" if {
	_freeze_is_on
	not _only_reads
}

# Anything but a plain `false` is taken for a freeze, so that a misspelt value does not lift it.
_freeze_is_on if input.context.change_freeze != false

_only_reads if registry.resource(input.resource.type, input.resource.id).access == "READ"
