# Runs the tests named after the first argument, which is the JUnit file to write.
report=$1
shift
escape() { sed 's/&/\&amp;/g; s/</\&lt;/g; s/>/\&gt;/g; s/"/\&quot;/g'; }

failures=0
echo '<testsuite name="shell">' >"$report"
for id in "$@"; do
    file=${id%%::*} name=${id##*::}
    echo "<testcase classname=\"$file\" name=\"$name\">" >>"$report"
    if ! output=$(sh -eu -c '. "./$1"; "$2"' run "$file" "$name" 2>&1); then
        failures=$((failures + 1))
        echo "<failure message=\"$name failed\">$(echo "$output" | escape)</failure>" >>"$report"
    fi
    echo '</testcase>' >>"$report"
done
echo '</testsuite>' >>"$report"
exit $((failures > 0))
