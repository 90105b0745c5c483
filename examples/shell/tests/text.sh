test_cuts_a_suffix() { sleep 0.3; name=report.xml; [ "${name%.xml}" = report ]; }
test_takes_a_default() { sleep 0.3; unset name; [ "${name:-nobody}" = nobody ]; }
test_counts_characters() { sleep 0.3; name=offload; [ "${#name}" -eq 7 ]; }
test_keeps_spaces_in_quotes() { sleep 0.3; name='a  b'; [ "$(echo "$name")" = 'a  b' ]; }
