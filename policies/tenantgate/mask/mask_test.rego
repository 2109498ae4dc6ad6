package tenantgate.mask_test

import data.tenantgate.mask

test_content_of_a_single_question_is_removed if {
	paths := mask.mask with input as {"path": "tenantgate/authorize/decision", "input": {"arguments": {}}, "result": {}}
	{"/input/arguments", "/input/context", "/input/subject/properties", "/result/explanation"} - paths == set()
}

test_content_of_a_search_is_removed if {
	paths := mask.mask with input as {"path": "tenantgate/search/subjects", "input": {"search": {}}, "result": {}}
	{"/input/search/properties", "/input/resource/properties", "/input/context"} - paths == set()
}

test_who_asked_for_what_stays if {
	paths := mask.mask with input as {"input": {"items": [{}]}, "result": {}}
	kept := {"/input/tenant", "/input/subject", "/input/subject/id", "/input/resource", "/input/items/0/resource", "/result"}
	paths & kept == set()
}

test_content_of_every_item_of_a_batch_is_removed if {
	paths := mask.mask with input as {"input": {"items": [{}, {}]}, "result": [{}, {}]}
	{"/input/items/0/arguments", "/input/items/1/context", "/result/1/explanation"} - paths == set()
}

test_content_of_every_coalesced_question_is_removed if {
	paths := mask.mask with input as {"input": {"questions": [{}, {}]}, "result": [{}, null]}
	{"/input/questions/0/arguments", "/input/questions/1/subject/properties", "/result/0/explanation"} - paths == set()
}

test_residuals_of_every_tool_are_removed if {
	paths := mask.mask with input as {"input": {"items": [{}]}, "result": {"tools": [{}]}}
	"/result/tools/0/residual" in paths
}

test_probes_are_dropped if mask.drop with input as {"input": {"tenant": {"id": ""}}}

test_decisions_are_kept if not mask.drop with input as {"input": {"tenant": {"id": "acme"}}}
