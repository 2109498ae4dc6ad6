# METADATA
# title: Extensions
# description: |
#   The customer's own Rego, in packages `custom.<name>` that the bundle lists. Each defines a set `deny` of reasons and may
#   declare `depends_on`, the parts of the request that it reads. It can only add reasons to deny: nothing else of it is looked at.
# schemas:
#   - input: schema.input
package tenantgate.extensions

# METADATA
# description: The reasons that an extension has to deny the item. One that cannot be evaluated denies.
reasons(name, item) := [sprintf("%v", [reason]) | some reason in denied] if {
	denied := data.custom[name].deny with input as object.union(object.remove(input, ["items"]), item)
	is_set(denied)
} else := [sprintf("the extension %q defines no set `deny`", [name])]

# METADATA
# description: |
#   The parts of the request that an extension reads: all of them, and the time, unless it lists others.
depends_on(name) := {part | some part in declared} if {
	declared := data.custom[name].depends_on
	type_name(declared) in {"array", "set"}
} else := {"action.properties", "arguments", "context", "resource.properties", "subject.properties", "time"}

# METADATA
# description: The extension can be asked about the item, as it knows the arguments, or does not read them.
decidable(_, item) if item.arguments

decidable(name, _) if not "arguments" in depends_on(name)
