# METADATA
# title: Mask
# description: |
#   What OPA leaves out of its decision log: what callers and users sent as content. Who asked for what, and what was answered,
#   stays. OPA is told of it by `decision_logs.mask_decision` and `decision_logs.drop_decision`.
package tenantgate.mask

# METADATA
# description: Entries that are left out altogether, which are those of the sidecar's own probes.
drop if input.input.tenant.id == ""

# METADATA
# description: Paths that are removed from an entry of the decision log, which is the `input` here.
mask contains path if {
	some path in [
		"/input/arguments",
		"/input/context",
		"/input/subject/properties",
		"/input/search/properties",
		"/input/resource/properties",
		"/input/action/properties",
		"/result/explanation",
	]
}

mask contains path if {
	some i, _ in input.input.items
	some part in ["arguments", "context", "resource/properties", "action/properties"]
	path := sprintf("/input/items/%d/%s", [i, part])
}

mask contains path if {
	some i, _ in input.input.questions
	some part in ["arguments", "context", "subject/properties", "resource/properties", "action/properties"]
	path := sprintf("/input/questions/%d/%s", [i, part])
}

mask contains path if {
	is_array(input.result)
	some i, _ in input.result
	path := sprintf("/result/%d/explanation", [i])
}

mask contains path if {
	some i, _ in input.result.tools
	path := sprintf("/result/tools/%d/residual", [i])
}
