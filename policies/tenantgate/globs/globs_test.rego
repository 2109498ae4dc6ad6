package tenantgate.globs_test

import data.tenantgate.globs

test_accepts[name] if {
	some name, tc in {
		"a plain text accepts itself": ["agent:tool:order-lookup", "agent:tool:order-lookup"],
		"a star takes in part of a segment": ["agent:tool:order-*", "agent:tool:order-lookup"],
		"a star takes in nothing": ["agent:tool:order-*", "agent:tool:order-"],
		"a star stands in the middle": ["agent:*:run", "agent:tool:run"],
		"a star takes in a dot": ["file:*", "file:a.b"],
		"a star takes in a line feed": ["a*", "a\nb"],
		"a star takes in a star": ["agent:tool:*", "agent:tool:*"],
		"a star takes in letters beyond ASCII": ["kb:*", "kb:ключ"],
		"two stars cross colons": ["agent:**", "agent:tool:order-lookup"],
		"two stars cross slashes": ["/todos/**", "/todos/1/items"],
		"two stars cross line feeds": ["a**", "a\n:b"],
		"two stars take in nothing": ["a**b", "ab"],
		"two stars and one star": ["**:*", "a:b:c"],
		"braces are plain": ["/todos/{todoId}", "/todos/{todoId}"],
		"brackets are plain": ["a[bc]", "a[bc]"],
		"a question mark is plain": ["a?", "a?"],
		"a dot is plain": ["a.b", "a.b"],
		"a plus is plain": ["a+", "a+"],
		"a bar is plain": ["a|b", "a|b"],
		"parentheses are plain": ["a(b)", "a(b)"],
		"a caret and a dollar are plain": ["^a$", "^a$"],
		"a backslash is plain": [`a\d`, `a\d`],
		"a backslash before a star leaves the star special": [`a\*`, `a\bc`],
	}
	regex.match(globs.to_regex(tc[0]), tc[1])
}

test_refuses[name] if {
	some name, tc in {
		"a plain text accepts no more": ["agent:tool:order-lookup", "agent:tool:order-lookup-admin"],
		"a plain text accepts no less": ["agent:tool:order-lookup", "agent:tool:order-look"],
		"a plain text is anchored at its start": ["tool", "a:tool"],
		"a star stops at a colon": ["agent:*", "agent:tool:order-lookup"],
		"a star stops at a slash": ["/todos/*", "/todos/1/items"],
		"a star before more text stops at a colon": ["agent:*-admin", "agent:tool:x-admin"],
		"letters of another case": ["agent:tool:*", "Agent:tool:x"],
		"a Cyrillic letter that looks alike": ["agent:tool:order-*", "agent:tool:\u043erder-lookup"],
		"a trailing space": ["agent:tool:order-lookup", "agent:tool:order-lookup "],
		"a trailing line feed": ["agent:tool:order-lookup", "agent:tool:order-lookup\n"],
		"braces are no alternatives": ["{a,b}", "a"],
		"braces are no variable": ["/todos/{todoId}", "/todos/1"],
		"brackets are no class": ["a[bc]", "ab"],
		"a question mark is no wildcard": ["a?", "ab"],
		"a dot is no wildcard": ["a.b", "axb"],
		"a plus repeats nothing": ["a+", "aa"],
		"a bar is no choice": ["a|b", "a"],
		"a backslash is no escape": [`a\d`, "a1"],
		"an empty text": ["a*", ""],
	}
	not regex.match(globs.to_regex(tc[0]), tc[1])
}

test_bad_glob_has_no_regex[name] if {
	some name, glob in {
		"an empty one": "",
		"three stars in a row": "a***",
		"four stars in a row": "****",
		"a control character": "a\u0001*",
		"a line feed": "a\n*",
		"a delete": "a\u007f",
	}
	not globs.to_regex(glob)
}
