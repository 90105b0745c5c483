//! Settings that take one of a few words.

use std::str::FromStr;

use super::RecordHistory;
use crate::model::KeepTogether;

/// A setting that takes one of a few words.
pub trait Choice: Copy + 'static {
    /// All values, in the order in which messages list them.
    const ALL: &'static [Self];

    /// The word in the file and on the command line.
    fn name(self) -> &'static str;
}

/// The value named `text`.
pub(super) fn find<C: Choice>(text: &str) -> Option<C> {
    C::ALL.iter().copied().find(|choice| choice.name() == text)
}

/// All words, for a message.
pub(super) fn known<C: Choice>() -> String {
    let names: Vec<_> = C::ALL.iter().map(|choice| format!("`{}`", choice.name())).collect();
    names.join(", ")
}

fn parse<C: Choice>(text: &str) -> Result<C, String> {
    find(text).ok_or_else(|| format!("unknown type `{text}`, expected one of {}", known::<C>()))
}

/// The values of `type` in `[provider]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderType {
    /// Processes on this machine.
    Local,
    /// Shell commands.
    Default,
    /// Modal.
    Modal,
}

impl Choice for ProviderType {
    const ALL: &'static [ProviderType] = &[ProviderType::Local, ProviderType::Default, ProviderType::Modal];

    fn name(self) -> &'static str {
        match self {
            ProviderType::Local => "local",
            ProviderType::Default => "default",
            ProviderType::Modal => "modal",
        }
    }
}

impl FromStr for ProviderType {
    type Err = String;

    fn from_str(text: &str) -> Result<ProviderType, String> {
        parse(text)
    }
}

/// The values of `type` in `[framework]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameworkType {
    /// pytest.
    Pytest,
    /// cargo-nextest.
    Nextest,
    /// vitest.
    Vitest,
    /// Shell commands.
    Default,
}

impl Choice for FrameworkType {
    const ALL: &'static [FrameworkType] =
        &[FrameworkType::Pytest, FrameworkType::Nextest, FrameworkType::Vitest, FrameworkType::Default];

    fn name(self) -> &'static str {
        match self {
            FrameworkType::Pytest => "pytest",
            FrameworkType::Nextest => "nextest",
            FrameworkType::Vitest => "vitest",
            FrameworkType::Default => "default",
        }
    }
}

impl FromStr for FrameworkType {
    type Err = String;

    fn from_str(text: &str) -> Result<FrameworkType, String> {
        parse(text)
    }
}

impl Choice for RecordHistory {
    const ALL: &'static [RecordHistory] = &[RecordHistory::Always, RecordHistory::Flag];

    fn name(self) -> &'static str {
        match self {
            RecordHistory::Always => "always",
            RecordHistory::Flag => "flag",
        }
    }
}

impl Choice for KeepTogether {
    const ALL: &'static [KeepTogether] = &[KeepTogether::Test, KeepTogether::Class, KeepTogether::File];

    fn name(self) -> &'static str {
        match self {
            KeepTogether::Test => "test",
            KeepTogether::Class => "class",
            KeepTogether::File => "file",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_names_its_value() {
        for provider in ProviderType::ALL {
            assert_eq!(provider.name().parse(), Ok(*provider));
        }
        for framework in FrameworkType::ALL {
            assert_eq!(framework.name().parse(), Ok(*framework));
        }
        let error = "docker".parse::<ProviderType>().unwrap_err();
        assert_eq!(error, "unknown type `docker`, expected one of `local`, `default`, `modal`");
    }
}
