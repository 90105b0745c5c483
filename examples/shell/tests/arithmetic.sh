# Each sleep stands for work, so that running side by side is seen.
test_adds() { sleep 0.3; [ $((2 + 2)) -eq 4 ]; }
test_divides_towards_zero() { sleep 0.3; [ $((-7 / 2)) -eq -3 ]; }
test_shifts() { sleep 0.3; [ $((1 << 10)) -eq 1024 ]; }
test_compares() { sleep 0.3; [ $((3 > 2)) -eq 1 ]; }
