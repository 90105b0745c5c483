//! The values of `type`.

use std::str::FromStr;

/// The values of `type` in `[provider]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderType {
    /// Processes of this machine.
    Local,
    /// Shell commands.
    Default,
    /// Modal.
    Modal,
}

impl ProviderType {
    /// Each with its name in the file and on the command line.
    pub const NAMES: [(&'static str, ProviderType); 3] =
        [("local", ProviderType::Local), ("default", ProviderType::Default), ("modal", ProviderType::Modal)];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        name(&ProviderType::NAMES, self)
    }
}

/// The error names the values that are known.
impl FromStr for ProviderType {
    type Err = String;

    fn from_str(text: &str) -> Result<ProviderType, String> {
        find(&ProviderType::NAMES, text)
    }
}

/// The values of `type` in `[framework]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameworkType {
    /// pytest.
    Pytest,
    /// cargo nextest.
    Nextest,
    /// vitest.
    Vitest,
    /// Shell commands.
    Default,
}

impl FrameworkType {
    /// Each with its name in the file and on the command line.
    pub const NAMES: [(&'static str, FrameworkType); 4] = [
        ("pytest", FrameworkType::Pytest),
        ("nextest", FrameworkType::Nextest),
        ("vitest", FrameworkType::Vitest),
        ("default", FrameworkType::Default),
    ];

    /// The name in the file.
    pub fn name(self) -> &'static str {
        name(&FrameworkType::NAMES, self)
    }
}

/// The error names the values that are known.
impl FromStr for FrameworkType {
    type Err = String;

    fn from_str(text: &str) -> Result<FrameworkType, String> {
        find(&FrameworkType::NAMES, text)
    }
}

fn name<T: PartialEq>(names: &[(&'static str, T)], wanted: T) -> &'static str {
    names.iter().find(|(_, value)| *value == wanted).map(|(name, _)| *name).unwrap_or_default()
}

fn find<T: Copy>(names: &[(&'static str, T)], text: &str) -> Result<T, String> {
    names.iter().find(|(name, _)| *name == text).map(|(_, value)| *value).ok_or_else(|| {
        let known: Vec<_> = names.iter().map(|(name, _)| format!("`{name}`")).collect();
        format!("unknown type `{text}`, known are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_types() {
        for (name, provider) in ProviderType::NAMES {
            assert_eq!((provider.name(), name.parse()), (name, Ok(provider)));
        }
        for (name, framework) in FrameworkType::NAMES {
            assert_eq!((framework.name(), name.parse()), (name, Ok(framework)));
        }
        let error = "docker".parse::<ProviderType>().unwrap_err();
        assert_eq!(error, "unknown type `docker`, known are `local`, `default`, `modal`");
    }
}
