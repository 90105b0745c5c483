//! Counts in English: the one place that forms plurals.

/// `number` with `noun`, which becomes plural unless there is exactly one: `1 test`, `3 batches`.
pub fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        return format!("1 {noun}");
    }
    let hisses = ["s", "x", "ch", "sh"].iter().any(|ending| noun.ends_with(ending));
    format!("{number} {noun}{}", if hisses { "es" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::count;

    #[test]
    fn only_one_is_singular() {
        let counts = [count(0, "test"), count(1, "test"), count(2, "sandbox"), count(3, "batch")];
        assert_eq!(counts, ["0 tests", "1 test", "2 sandboxes", "3 batches"]);
    }
}
