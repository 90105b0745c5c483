//! What to say where an address was taken: most often by another batch of the same run.

use super::Report;

/// Whether a text says that an address was taken, in the words of Linux, macOS, Node or Go.
pub(super) fn says_taken(text: &str) -> bool {
    text.contains("EADDRINUSE") || text.to_ascii_lowercase().contains("address already in use")
}

impl Report<'_> {
    /// The advice, if a reason or the ends of the logs of `batches` say that an address was taken. `id` is a test of
    /// theirs, if one is known.
    pub(super) fn advice(&self, reason: &str, batches: &[u32], id: Option<&str>) -> Option<String> {
        let is_taken = says_taken(reason)
            || batches.iter().flat_map(|batch| self.logs.of(*batch)).any(|log| says_taken(&log.end()));
        let group = match (id.and_then(|id| self.suite.find(id)), self.suite.groups()) {
            (Some(test), _) => &self.suite.group(self.suite.test(test).group).name,
            (None, [only]) => &only.name,
            (None, _) => "NAME",
        };
        is_taken.then(|| {
            format!(
                "what is set up for all tests is set up once per batch, and batches run at the same time: \
                 `max_parallel = 1` in [groups.{group}] runs them one by one"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_recognized_in_many_words() {
        for text in [
            "OSError: [Errno 98] Address already in use",
            "Error: listen EADDRINUSE: :::8080",
            "bind: address already in use",
            "Os { code: 98, kind: AddrInUse, message: \"Address already in use\" }",
        ] {
            assert!(says_taken(text), "{text}");
        }
        assert!(!says_taken("the address is in use"));
    }
}
