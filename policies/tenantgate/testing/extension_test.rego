# METADATA
# title: An extension of the tests
# description: |
#   It tells what it sees. The file is named like a test so that no bundle takes it in.
package custom.telling_test

# METADATA
# description: What the request is about, if it says by which channel it came, and the items that it sees besides.
deny contains sprintf("%s by %s, besides %v", [input.resource.id, input.context.channel, others]) if {
	others := object.get(input, "items", "nothing")
}
