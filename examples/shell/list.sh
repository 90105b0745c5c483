# Prints an id a line, `FILE::FUNCTION`, of the functions that start with `test_` in tests/*.sh.
# An argument is a pattern that ids must match.
for file in tests/*.sh; do
    sed -n "s|^\(test_[a-z_]*\)().*|$file::\1|p" "$file"
done | grep -e "${1:-.}"
