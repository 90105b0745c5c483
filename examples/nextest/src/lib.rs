//! A small library with tests.

/// The greatest common divisor.
pub fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::gcd;

    #[test]
    fn zero_divides_nothing() {
        assert_eq!(gcd(12, 0), 12);
    }

    #[test]
    fn the_order_does_not_matter() {
        assert_eq!(gcd(12, 18), gcd(18, 12));
    }

    #[test]
    fn neighbours_share_nothing() {
        assert_eq!(gcd(12, 13), 1);
    }

    #[test]
    #[ignore = "shows `include_ignored`"]
    fn large_numbers_are_fast() {
        assert_eq!(gcd(u64::MAX, 2), 1);
    }
}
