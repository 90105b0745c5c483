test_sorts() { sleep 0.3; [ "$(printf 'b\na\n' | sort | head -n 1)" = a ]; }
test_counts_lines() { sleep 0.3; [ "$(printf 'a\nb\n' | wc -l)" -eq 2 ]; }
test_makes_a_folder() { sleep 0.3; folder=$(mktemp -d); [ -d "$folder" ]; rmdir "$folder"; }
test_finds_itself() { sleep 0.3; grep -q test_finds_itself tests/files.sh; }
