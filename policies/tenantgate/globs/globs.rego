# METADATA
# title: Globs
# description: |
#   A glob is a text in which `*` stands for any characters but `:` and `/`, and `**` for any characters at all. Nothing else
#   is special. The compiler translates the registry's globs the same way; this package serves those known only with the
#   request.
package tenantgate.globs

# METADATA
# description: |
#   The regular expression (RE2) that accepts what the glob accepts; undefined for a bad glob, which is an empty one, one with
#   three or more `*` in a row, and one with a control character.
to_regex(glob) := sprintf("^(?s:%s)$", [body]) if {
	glob != ""
	not contains(glob, "***")
	not regex.match(`[\x00-\x1f\x7f]`, glob)
	quoted := regex.replace(glob, `[\\.+?()|\[\]{}^$]`, `\$0`)

	# U+0001 cannot be in the text any more: it keeps the `**` apart from the `*` that its translation brings in
	crossing := replace(quoted, "**", "\u0001")
	body := replace(replace(crossing, "*", "[^:/]*"), "\u0001", ".*")
}
