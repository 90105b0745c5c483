//! Colors: when a stream gets them, and the codes that make them.

use std::fmt::{self, Display};

/// What the environment says about terminals.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Terminals {
    /// Output is for a CI log: no colors unless forced, and nothing is drawn twice.
    is_ci: bool,
    /// `NO_COLOR` is set, or colors were turned off by a flag.
    refuses_color: bool,
    /// `CLICOLOR_FORCE` asks for colors on any stream.
    forces_color: bool,
    /// The terminal understands no control sequences.
    is_dumb: bool,
}

impl Terminals {
    /// Reads the variables with `lookup`; `plain` is the `--ci` flag, which outranks them all.
    pub fn new(plain: bool, lookup: &dyn Fn(&str) -> Option<String>) -> Terminals {
        let value = |name: &str| lookup(name).filter(|value| !value.is_empty());
        Terminals {
            is_ci: plain || value("CI").is_some_and(|value| !matches!(value.as_str(), "false" | "0")),
            refuses_color: plain || value("NO_COLOR").is_some(),
            forces_color: value("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            is_dumb: value("TERM").is_some_and(|value| value == "dumb"),
        }
    }

    /// The colors for a stream.
    pub fn palette(self, is_terminal: bool) -> Palette {
        let suits = is_terminal && !self.is_ci && !self.is_dumb;
        Palette { is_on: !self.refuses_color && (self.forces_color || suits) }
    }

    /// Whether a progress bar may be drawn on a stream.
    pub fn allow_drawing(self, is_terminal: bool) -> bool {
        is_terminal && !self.is_ci && !self.is_dumb
    }
}

/// Colors for one stream; the default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Palette {
    is_on: bool,
}

impl Palette {
    /// For failures.
    pub fn red<T: Display>(self, text: T) -> Painted<T> {
        self.paint("31;1", text)
    }

    /// For passes.
    pub fn green<T: Display>(self, text: T) -> Painted<T> {
        self.paint("32;1", text)
    }

    /// For warnings and flaky tests.
    pub fn yellow<T: Display>(self, text: T) -> Painted<T> {
        self.paint("33;1", text)
    }

    /// For hints and other details.
    pub fn dim<T: Display>(self, text: T) -> Painted<T> {
        self.paint("2", text)
    }

    fn paint<T>(self, code: &'static str, text: T) -> Painted<T> {
        Painted { code: self.is_on.then_some(code), text }
    }
}

/// A text in a color, or as it is.
#[derive(Clone, Copy, Debug)]
pub struct Painted<T> {
    code: Option<&'static str>,
    text: T,
}

impl<T: Display> Display for Painted<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(formatter, "\x1b[{code}m{}\x1b[0m", self.text),
            None => self.text.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terminals(plain: bool, variables: &[(&str, &str)]) -> Terminals {
        Terminals::new(plain, &|wanted| {
            let found = variables.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn the_flag_outranks_no_color_which_outranks_force_which_outranks_ci() {
        let is_on = |plain, variables: &[(&str, &str)], is_terminal| {
            terminals(plain, variables).palette(is_terminal).is_on
        };
        assert!(is_on(false, &[], true));
        assert!(!is_on(false, &[], false));
        for off in [("NO_COLOR", "1"), ("CI", "true"), ("TERM", "dumb")] {
            assert!(!is_on(false, &[off], true), "{off:?}");
        }
        for nothing in [("NO_COLOR", ""), ("CI", "false"), ("CI", ""), ("CLICOLOR_FORCE", "0")] {
            assert!(is_on(false, &[nothing], true), "{nothing:?}");
        }
        let force = ("CLICOLOR_FORCE", "1");
        assert!(is_on(false, &[force], false));
        assert!(is_on(false, &[force, ("CI", "true")], false));
        assert!(!is_on(false, &[force, ("NO_COLOR", "1")], true));
        assert!(!is_on(true, &[force], true));
    }

    #[test]
    fn a_bar_needs_a_terminal_that_is_no_ci_log_and_not_a_color() {
        assert!(terminals(false, &[("NO_COLOR", "1")]).allow_drawing(true));
        assert!(!terminals(false, &[("CLICOLOR_FORCE", "1")]).allow_drawing(false));
        assert!(!terminals(true, &[]).allow_drawing(true));
        assert!(!terminals(false, &[("CI", "1")]).allow_drawing(true));
    }

    #[test]
    fn without_colors_texts_stay_as_they_are() {
        assert_eq!(Palette::default().red("x").to_string(), "x");
        assert_eq!(Palette { is_on: true }.red("x").to_string(), "\x1b[31;1mx\x1b[0m");
    }
}
