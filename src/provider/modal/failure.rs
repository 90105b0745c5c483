//! How a request to Modal fails, and what that means for the caller.

use crate::provider::ProviderError;

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The SDK raised an exception.
    Reported {
        /// The name of the exception.
        class: String,
        /// Its text.
        message: String,
    },
    /// The driver cannot be started, or has ended; why.
    Broken(String),
    /// It took too long.
    TimedOut,
    /// The caller stopped waiting.
    Abandoned,
}

/// What to do about a token that Modal rejects.
const NO_TOKEN: &str = "make one with `modal token new`, or set MODAL_TOKEN_ID and MODAL_TOKEN_SECRET";
const NO_SERVER: &str = "check the network and MODAL_SERVER_URL";

impl Failure {
    fn is(&self, classes: &[&str]) -> bool {
        matches!(self, Failure::Reported { class, .. } if classes.contains(&class.as_str()))
    }

    fn text(&self) -> String {
        match self {
            Failure::Reported { message, .. } if self.is(&["AuthError"]) => {
                format!("Modal rejects the token ({NO_TOKEN}): {message}")
            }
            Failure::Reported { message, .. } if self.is(&["ConnectionError"]) => {
                format!("Modal cannot be reached ({NO_SERVER}): {message}")
            }
            Failure::Reported { class, message } => format!("Modal: {message} ({class})"),
            Failure::Broken(reason) => reason.clone(),
            Failure::TimedOut => "Modal did not answer in time (`timeout_secs`)".into(),
            Failure::Abandoned => "the run was stopped before Modal answered".into(),
        }
    }

    /// Whether the same request may succeed later.
    fn is_throttled(&self) -> bool {
        self.is(&["ResourceExhaustedError"])
    }

    /// Of an image that was to be made.
    pub(super) fn of_an_image(self) -> ProviderError {
        if self.is_throttled() {
            ProviderError::Throttled(self.text())
        } else {
            ProviderError::Refused(self.text())
        }
    }

    /// Of a sandbox that was to be made; `Lost` where it may have been.
    pub(super) fn of_a_create(self) -> ProviderError {
        let text = self.text();
        match &self {
            _ if self.is_throttled() || self.is(&["ServiceError"]) => ProviderError::Throttled(text),
            Failure::Reported { .. }
                if !self.is(&["InternalError", "StreamTerminatedError", "TimeoutError"]) =>
            {
                ProviderError::Refused(text)
            }
            _ => ProviderError::Lost(text),
        }
    }

    /// Of anything that is asked of a sandbox.
    pub(super) fn of_a_sandbox(self, id: &str) -> ProviderError {
        // Not in the reason: equal ones are counted together.
        log::debug!("sandbox `{id}`: {}", self.text());
        let text = self.text();
        if self.is_throttled() { ProviderError::Throttled(text) } else { ProviderError::Lost(text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(class: &str) -> Failure {
        Failure::Reported { class: class.into(), message: "so it is".into() }
    }

    #[test]
    fn failures_are_told_apart() {
        use ProviderError::{Lost, Refused, Throttled};
        assert!(matches!(reported("ResourceExhaustedError").of_a_create(), Throttled(_)));
        assert!(matches!(reported("ServiceError").of_a_create(), Throttled(_)));
        assert!(matches!(reported("NotFoundError").of_a_create(), Refused(_)));
        assert!(matches!(reported("StreamTerminatedError").of_a_create(), Lost(_)));
        assert!(matches!(Failure::Abandoned.of_a_create(), Lost(_)));
        assert!(matches!(reported("NotFoundError").of_a_sandbox("sb"), Lost(_)));
        assert!(matches!(reported("ResourceExhaustedError").of_a_sandbox("sb"), Throttled(_)));
        assert!(matches!(reported("ImageBuildError").of_an_image(), Refused(_)));
        let Refused(text) = reported("AuthError").of_an_image() else { panic!() };
        assert!(text.contains("modal token new") && text.ends_with("so it is"), "{text}");
    }
}
